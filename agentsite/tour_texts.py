"""What the tour says."""

NAME = "tour"
LABEL = "Scripted, not an AI."

WELCOME = f"""{LABEL} This is a tour of the chat with replies that were written in advance. \
Nothing here understands what you write, but everything else is real: the words come over a \
WebSocket, and each of them was stored before you saw it.

Ask for one of these:

- a long reply, to press Stop in the middle, or to reload the page while it is written
- Markdown, to see how formatted text looks
- a tool, to watch one report its progress

To have a model answer instead, set `OPENAI_API_KEY`, or `OPENAI_BASE_URL` and `AGENT_MODEL`, \
and start again.
"""

MARKDOWN = f"""{LABEL} A reply may hold any Markdown.

## A list

1. Numbered entries
2. with *emphasis*, **strong words** and `code`

## A table

| what happens | what is kept |
| --- | --- |
| the page is reloaded | everything |
| the network goes away | everything |
| the server is restarted | everything that was shown |

## Some code

```python
def greet(name: str) -> str:
    return f"Hello, {{name}}."
```

> And a quotation, for good measure.
"""

_PARAGRAPHS = (
    "A reply is a row in the database before it is a word on a page. The server asks the model, "
    "gathers what comes for a few hundredths of a second, commits it, and only then shows it.",
    "So a page may leave at any time. When it comes back it says how far it had read, and is sent "
    "what came after that: not the whole reply again, and not a word twice.",
    "Press Stop and the request to the model is closed at once. What was written until then "
    "stays, and the next message goes on from there.",
    "Open this conversation in a second window and both are written at the same time. Write in "
    "one while the other waits, and the message takes its place in the queue.",
    "If the server itself is lost in the middle of a reply, the part that was shown is still "
    "there afterwards, and the page offers to continue or to begin again.",
)

LONG = (
    f"{LABEL} This reply is long on purpose. Stop it, reload it, or watch it from two windows.\n\n"
    + "\n\n".join(f"{number}. {text}" for number, text in enumerate(_PARAGRAPHS * 4, 1))
)


def tool_result(found: str) -> str:
    """The reply after the tool has returned."""
    return f"{LABEL} The tool has finished and told me: {found} Its steps are shown above."
