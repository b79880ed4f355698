/** The page as the server renders it now: its log and what its code starts from. */
export async function loadHistory(address) {
  const response = await fetch(address, { headers: { Accept: "text/html" } });
  if (!response.ok || response.redirected) throw new Error(`history: ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return {
    data: JSON.parse(page.getElementById("chat-data").textContent),
    messages: [...page.querySelectorAll("#log > .message")],
    page,
  };
}
