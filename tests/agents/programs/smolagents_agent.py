"""An agent of smolagents with a tool for commands: smolagents_agent.py TASK."""
import os, subprocess, sys
from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def shell(command: str) -> str:
    """Runs a command and returns what it prints.

    Args:
        command: The command.
    """
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


model = OpenAIServerModel(model_id="gpt-4o", api_base=os.environ.get("OPENAI_BASE_URL"), api_key="dummy")
print(ToolCallingAgent(tools=[shell], model=model).run(sys.argv[1]))
