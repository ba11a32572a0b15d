"""Agents and frameworks that scripts/test-agents runs only with --all: how each is started, and its tool for commands."""
import json, os, pathlib, sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
TASK = "count the files"


def openai(url):
    return {"OPENAI_API_KEY": "dummy"} | ({"OPENAI_BASE_URL": f"{url}/v1"} if url else {})


def anthropic(url):
    return {"ANTHROPIC_API_KEY": "dummy"} | ({"ANTHROPIC_BASE_URL": url} if url else {})


def program(package, name, variables, more=None):
    """An agent of a framework: a program of this folder."""
    def make(url, home, packages):
        return [packages / "python" / package / "bin" / "python", HERE / "programs" / name, TASK], variables(url) | (more or {})
    return make


def google_adk(url, home, packages):
    command = [packages / "python" / "google-adk" / "bin" / "python", HERE / "programs" / "google_adk_agent.py", TASK]
    return command, {"GOOGLE_API_KEY": "dummy"} | ({"GOOGLE_GEMINI_BASE_URL": url} if url else {})


def vercel_ai(url, home, packages):
    # Modules are looked for beside the program.
    copy = packages / "vercel_ai.mjs"
    copy.write_text((HERE / "programs" / "vercel_ai.mjs").read_text())
    return ["node", copy, TASK], openai(url)


def qwen(url, home, packages):
    # By itself it calls a service of its maker.
    return ["qwen", "--yolo", "--auth-type", "openai", "-p", TASK], openai(url or "https://api.openai.com") | {"OPENAI_MODEL": "gpt-5.2"}


def cline(url, home, packages):
    # Only this provider takes a base URL.
    provider, base = ("openai", f"-b {url}/v1") if url else ("openai-native", "")
    login = f"cline auth -p {provider} -k dummy -m gpt-5.2 {base}"
    return ["sh", "-c", f"{login} && exec cline -P {provider} -m gpt-5.2 '{TASK}'"], {"CLINE_TELEMETRY_DISABLED": "1"}


def aider(url, home, packages):
    command = [packages / "python" / "aider" / "bin" / "aider", "--no-git", "--yes-always", "--model", "openai/gpt-4o", "--no-check-update",
               "--analytics-disable", "--no-show-model-warnings", "--no-pretty", "--message", TASK]
    return command, {"OPENAI_API_KEY": "dummy"} | ({"OPENAI_API_BASE": f"{url}/v1"} if url else {})


def mini_swe_agent(url, home, packages):
    command = [packages / "python" / "mini-swe-agent" / "bin" / "mini", "--task", TASK, "--model", "anthropic/claude-sonnet-4-5",
               "--yolo", "--exit-immediately", "--cost-limit", "0"]
    env = {"MSWEA_CONFIGURED": "true", "MSWEA_COST_TRACKING": "ignore_errors", "MSWEA_SILENT_STARTUP": "1"}
    # LiteLLM has the whole path in its base URL.
    return command, anthropic(url) | env | ({"ANTHROPIC_API_BASE": url} if url else {})


def by_command(command):
    return {"command": command}


def agents(answer, described):
    """Like AGENTS of scripts/test-agents, with the last turn where it is not a text, and whether it runs commands."""
    final = {"repeat": True, "tool_calls": [{"name": "final_answer", "arguments": {"answer": answer}}]}
    submit = f"printf 'COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\\n{answer}\\n'"
    return {
        "cline": dict(make=cline, tool="run_commands", arguments=lambda command: {"commands": [command]}),
        "qwen-code": dict(make=qwen, tool="run_shell_command", arguments=lambda command: described(command) | {"is_background": False}),
        "aider": dict(make=aider, tool=None),
        "mini-swe-agent": dict(make=mini_swe_agent, tool="bash", arguments=by_command,
                               last={"repeat": True, "tool_calls": [{"name": "bash", "arguments": {"command": submit}}]}),
        "openai-agents": dict(make=program("openai-agents", "openai_agents.py", openai), tool="shell", arguments=by_command),
        "langgraph": dict(make=program("langgraph", "langgraph_agent.py", openai), tool="shell", arguments=by_command),
        "crewai": dict(make=program("crewai", "crewai_agent.py", openai, {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true"}),
                       tool="shell", arguments=by_command),
        "smolagents": dict(make=program("smolagents", "smolagents_agent.py", openai), tool="shell", arguments=by_command, last=final),
        "autogen": dict(make=program("autogen", "autogen_agent.py", openai), tool="shell", arguments=by_command),
        "google-adk": dict(make=google_adk, tool="shell", arguments=by_command),
        "claude-agent-sdk": dict(make=program("claude-agent-sdk", "claude_agent_sdk_agent.py", anthropic), tool="Bash", arguments=described),
        "vercel-ai": dict(make=vercel_ai, tool="shell", arguments=by_command),
    }
