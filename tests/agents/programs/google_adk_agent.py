"""An agent of Google's ADK with a tool for commands: google_adk_agent.py TASK."""
import asyncio, subprocess, sys
from google.adk.agents import LlmAgent
from google.adk.runners import InMemoryRunner


def shell(command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


async def main():
    agent = LlmAgent(name="counter", model="gemini-2.5-flash", instruction="Be brief.", tools=[shell])
    runner = InMemoryRunner(agent=agent, app_name="test")
    for event in await runner.run_debug(sys.argv[1], quiet=True):
        for part in (event.content.parts if event.content else None) or []:
            print(part.text or "")


asyncio.run(main())
