"""Measures how often the embedded model calls a tool when it should, and only then.

`python -m benchmarks.local_tools [--times 1]`, once the model has been fetched (`manage.py
local_model fetch`).
"""

import argparse
import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

os.environ.setdefault("DEBUG", "1")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")

import openai
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    function_tool,
)
from django.conf import settings

from agentsite.local_model.supervisor import ModelProcess
from agentsite.local_model.weights import QWEN, Job
from benchmarks.measure import machine, table

SAID = ("17", "rain", "Marsh", "3 books", "minutes")
"""Parts of the tools' results that a correct answer repeats."""

QUIET = RunConfig(tracing_disabled=True)
CALLED: list[tuple[str, str]] = []


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city at this moment."""
    CALLED.append(("get_weather", city))
    return f"In {city} it is 17 degrees with light rain."


@function_tool
def find_books(subject: str) -> str:
    """Search the library's catalogue for books about a subject."""
    CALLED.append(("find_books", subject))
    return f"There are 3 books about {subject}; the newest is called Marsh Light."


@function_tool
def start_timer(minutes: int) -> str:
    """Start a timer that rings after so many minutes."""
    CALLED.append(("start_timer", str(minutes)))
    return f"The timer rings in {minutes} minutes."


NEEDED = [
    ("What is the weather in Oslo right now?", "get_weather", "oslo"),
    ("Is it raining in Madrid at the moment?", "get_weather", "madrid"),
    ("How warm is it in Nairobi now?", "get_weather", "nairobi"),
    ("Do I need an umbrella in Lima today?", "get_weather", "lima"),
    ("Tell me the current weather for Kyoto.", "get_weather", "kyoto"),
    ("Can you check how cold it is in Helsinki?", "get_weather", "helsinki"),
    ("weather in Cairo?", "get_weather", "cairo"),
    ("I am flying to Boston in an hour. What is the weather there?", "get_weather", "boston"),
    ("Find me books about herons.", "find_books", "heron"),
    ("Does the library have anything on medieval music?", "find_books", "music"),
    ("I am looking for a book about knots.", "find_books", "knot"),
    ("Search the catalogue for volcanoes.", "find_books", "volcano"),
    ("Which books about chess do you have?", "find_books", "chess"),
    ("Are there any books on bread baking?", "find_books", "bread"),
    ("Please look up books about the history of maps.", "find_books", "map"),
    ("What is there to read about beekeeping in the library?", "find_books", "bee"),
    ("Set a timer for 10 minutes.", "start_timer", "10"),
    ("Remind me in 25 minutes.", "start_timer", "25"),
    ("Start a 5 minute timer, please.", "start_timer", "5"),
    ("My tea needs 4 minutes, set a timer.", "start_timer", "4"),
    ("Wake me in 30 minutes.", "start_timer", "30"),
    ("Timer: 12 minutes", "start_timer", "12"),
    ("I put a cake in the oven. Let something ring in 45 minutes.", "start_timer", "45"),
    ("Count down 3 minutes for my eggs.", "start_timer", "3"),
]
NEEDLESS = [
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "Write a haiku about rain.",
    "What is 17 times 3?",
    "Thank you, that was helpful.",
    "Explain what a library is, in one sentence.",
    "Write a Python function that adds two numbers.",
    "How does a thermometer work?",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "Give me three names for a cat.",
    "What is the difference between weather and climate?",
    "Tell me a joke.",
    "Who wrote Hamlet?",
    "How do I boil an egg?",
    "What does HTTP stand for?",
    "Correct this sentence: he go to school.",
    "What is a good title for a story about the sea?",
    "How many minutes are in three hours?",
    "Name two rivers in Germany.",
    "Is a tomato a fruit?",
    "What are you able to do?",
    "Summarise: the meeting moved from Monday to Tuesday because of a strike.",
]


@dataclass
class Tally:
    """Results of `tries`: `right` ones, and `told`, answers that repeat what the tool returned."""

    tries: int = 0
    right: int = 0
    told: int = 0


@asynccontextmanager
async def local_model() -> AsyncIterator[Model]:
    """Run the embedded model in a child process of its own."""
    weights = QWEN
    key = secrets.token_urlsafe()
    job = Job(weights, settings.LOCAL_MODEL_CACHE, mirror=True, key=key)
    async with aclosing(ModelProcess().messages(job)) as messages:
        async for message in messages:
            if message["state"] == "failed":
                raise SystemExit(f"agentsite: {message['fault']} {message['values']}")
            if message["state"] == "ready":
                client = openai.AsyncOpenAI(base_url=message["url"], api_key=key, timeout=600)
                yield OpenAIChatCompletionsModel(weights.name, client)
                return


async def ask(agent: Agent, question: str) -> str:
    """Return the answer to a question; its tool calls are in `CALLED`."""
    CALLED.clear()
    try:
        done = await Runner.run(agent, question, max_turns=4, run_config=QUIET)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return str(done.final_output)


async def count(agent: Agent, times: int) -> dict[str, Tally]:
    tallies = {"a tool is needed": Tally(), "no tool is needed": Tally()}
    for _ in range(times):
        for question, tool, argument in NEEDED:
            tally = tallies["a tool is needed"]
            answer = await ask(agent, question)
            is_right = [name for name, _ in CALLED] == [tool] and argument in CALLED[0][1].lower()
            note(tally, question, answer, is_right=is_right)
            tally.told += is_right and any(word in answer for word in SAID)
        for question in NEEDLESS:
            answer = await ask(agent, question)
            note(tallies["no tool is needed"], question, answer, is_right=not CALLED)
    return tallies


def note(tally: Tally, question: str, answer: str, *, is_right: bool) -> None:
    tally.tries += 1
    tally.right += is_right
    if not is_right:
        print(f"    {question} -> {CALLED} {answer[:100]!r}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    print(machine(), flush=True)
    async with local_model() as model:
        agent = Agent(
            name="helper",
            instructions="You are a helpful assistant.",
            tools=[get_weather, find_books, start_timer],
            model=model,
        )
        tallies = await count(agent, options.times)
    rows = [
        (name, str(tally.tries), str(tally.right), str(tally.told) if tally.told else "")
        for name, tally in tallies.items()
    ]
    print(table(("question", "tries", "right", "told in the answer"), rows))


if __name__ == "__main__":
    import django

    django.setup()
    asyncio.run(main())
