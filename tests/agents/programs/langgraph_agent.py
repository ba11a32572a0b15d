"""An agent of LangChain, which runs on LangGraph, with a tool for commands: langgraph_agent.py TASK."""
import subprocess, sys
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def shell(command: str) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


agent = create_agent(ChatOpenAI(model="gpt-4o"), tools=[shell], system_prompt="Be brief.")
print(agent.invoke({"messages": [("user", sys.argv[1])]})["messages"][-1].content)
