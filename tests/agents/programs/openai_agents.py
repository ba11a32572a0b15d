"""An agent of OpenAI's Agents SDK with a tool for commands: openai_agents.py TASK."""
import subprocess, sys
from agents import Agent, Runner, function_tool, set_tracing_disabled


@function_tool
def shell(command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


set_tracing_disabled(True)
print(Runner.run_sync(Agent(name="counter", instructions="Be brief.", model="gpt-5", tools=[shell]), sys.argv[1]).final_output)
