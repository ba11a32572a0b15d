"""An agent of CrewAI with a tool for commands: crewai_agent.py TASK."""
import os, subprocess, sys
from crewai import LLM, Agent, Crew, Task
from crewai.tools import tool


@tool("shell")
def shell(command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


base = {"base_url": os.environ["OPENAI_BASE_URL"]} if "OPENAI_BASE_URL" in os.environ else {}
model = LLM(model="gpt-4o", api_key="dummy", **base)
agent = Agent(role="counter", goal="count", backstory="You count.", llm=model, tools=[shell], verbose=False)
task = Task(description=sys.argv[1], expected_output="a sentence", agent=agent)
print(Crew(agents=[agent], tasks=[task], verbose=False).kickoff().raw)
