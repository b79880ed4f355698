"""A plain relay as in tutorials: FastAPI on uvicorn, one `send_json` per token, nothing stored."""

import argparse

import uvicorn
from agents import Agent, Runner, set_default_openai_api, set_tracing_disabled
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from openai.types.responses import ResponseTextDeltaEvent

app = FastAPI()
agent = Agent("relay", model="stand-in")


@app.get("/healthz/")
async def healthz() -> dict[str, bool]:
    return {"ok": True}


@app.websocket("/ws/agent/")
async def relay(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            chat = await websocket.receive_json()
            await stream_reply(websocket, chat["content"])
    except WebSocketDisconnect:
        pass


async def stream_reply(websocket: WebSocket, prompt: str) -> None:
    result = Runner.run_streamed(agent, prompt)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            await websocket.send_json({"type": "token", "content": event.data.delta})
    await websocket.send_json({"type": "complete", "content": result.final_output})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api", default="chat")
    parser.add_argument("--loop", default="auto")
    options = parser.parse_args()
    set_tracing_disabled(True)
    set_default_openai_api("responses" if options.api == "responses" else "chat_completions")
    uvicorn.run(app, host="127.0.0.1", port=options.port, loop=options.loop, log_level="warning")


if __name__ == "__main__":
    main()
