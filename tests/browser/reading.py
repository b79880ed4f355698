"""What assistive technology is given of a page: the order of reading, and the keyboard's path."""

import difflib
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Page

EXPECTED = Path(__file__).with_name("reading_order.txt")
LIST_OF_CONVERSATIONS = re.compile(r'^- (navigation "Conversations"|link "To the mess)')
# What is another one in each run.
VARIABLE = (
    (re.compile(r"\n *- /url: .*"), ""),
    (re.compile(r"\b\d\d:\d\d [AP]M\b"), "00:00"),
    (re.compile(r"(Made|Shared on|time:) [A-Z][a-z]+ \d.*\d{4}.*"), r"\1 …"),
    (re.compile(r"http://127\S+"), "http://…"),
    (re.compile(r"agk_\w{8}\w*"), "agk_…"),
)


async def read(page: Page) -> str:
    """All that is read of the page but the list of conversations, in the order of reading."""
    text = await page.locator("body").aria_snapshot()
    for pattern, constant in VARIABLE:
        text = pattern.sub(constant, text)
    parts = re.split(r"\n(?=- )", text)
    return "\n".join(part for part in parts if not LIST_OF_CONVERSATIONS.match(part))


def expected(name: str) -> str:
    """What `reading_order.txt` says of a state."""
    _, *texts = re.split(r"^# (\w+)\n", EXPECTED.read_text(), flags=re.MULTILINE)
    sections = dict(zip(texts[::2], texts[1::2], strict=True))
    return sections[name].strip().replace("      (the answer)", sections["the_answer"].rstrip())


async def reads_as_expected(page: Page, name: str) -> None:
    """Wait until the page reads as `reading_order.txt` says."""
    wanted = expected(name)
    for pause_ms in (0, 250, 1_000, 4_000):
        await page.wait_for_timeout(pause_ms)
        if (shown := await read(page)) == wanted:
            return
    difference = difflib.unified_diff(wanted.splitlines(), shown.splitlines(), lineterm="")
    raise AssertionError("\n".join(["reads otherwise than reading_order.txt says", *difference]))


# What of the page, or of the dialog over it, the Tab key must reach.
FIND_STOPS = """() => {
  const most = document.querySelectorAll("#session-list > li:nth-child(n + 4)");
  for (const line of most) line.remove();
  const inside = document.querySelector("dialog[open]") ?? document.body;
  const stops = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  const isStop = (element) =>
    element.tabIndex >= 0 &&
    !element.matches(":disabled, [inert] *") &&
    !element.matches("[type=radio]:not(:checked)") &&
    element.checkVisibility({ visibilityProperty: true });
  window.stops = new Set([...inside.querySelectorAll(stops)].filter(isStop));
  return window.stops.size;
}"""
# What is focused now is crossed off; the answer is what is wrong with it, and how many are left.
CROSS_OFF = """() => {
  const focused = document.activeElement;
  if (!window.stops.delete(focused)) return ["", window.stops.size];
  const around = [focused, focused.parentElement, focused.closest(".composer-box")];
  const isRing = ({ outlineStyle, outlineWidth, opacity }) =>
    outlineStyle !== "none" && outlineWidth !== "0px" && opacity !== "0";
  const isMarked = around.some((part) => part && (isRing(getComputedStyle(part)) ||
    (part.matches(".composer-box") && getComputedStyle(part).boxShadow !== "none")));
  const { top, bottom, width } = focused.getBoundingClientRect();
  const isInSight = width > 0 && bottom > 0 && top < innerHeight;
  const name = focused.getAttribute("aria-label") ?? focused.textContent.trim();
  const fault = isMarked && isInSight ? "" : `${focused.localName} "${name}"`;
  return [fault, window.stops.size];
}"""
# What has gone meanwhile, such as a notice, could not be reached.
LEFT = """() => [...window.stops]
  .filter((element) => element.checkVisibility({ visibilityProperty: true }))
  .map(({ outerHTML }) => outerHTML.slice(0, 120))"""


async def is_reached_by_keys(page: Page) -> None:
    """The Tab key alone gets to all that can be worked, and each is in sight and marked there."""
    count: Any = await page.evaluate(FIND_STOPS)
    faults = []
    for _ in range(2 * count + 10):
        await page.keyboard.press("Tab")
        fault, left = await page.evaluate(CROSS_OFF)
        faults += [fault] if fault else []
        if not left:
            break
    faults += [f"not reached: {stop}" for stop in await page.evaluate(LEFT)]
    assert not faults, faults
