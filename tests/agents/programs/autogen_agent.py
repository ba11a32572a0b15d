"""An agent of AutoGen with a tool for commands: autogen_agent.py TASK."""
import asyncio, os, subprocess, sys
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient


def shell(command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


async def main():
    base = {"base_url": os.environ["OPENAI_BASE_URL"]} if "OPENAI_BASE_URL" in os.environ else {}
    client = OpenAIChatCompletionClient(model="gpt-4o", api_key="dummy", **base)
    agent = AssistantAgent("counter", model_client=client, tools=[shell], max_tool_iterations=9)
    print((await agent.run(task=sys.argv[1])).messages[-1].content)


asyncio.run(main())
