"""Claude Code through the Claude Agent SDK: claude_agent_sdk_agent.py TASK."""
import asyncio, sys
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, TextBlock, query


async def main():
    async for message in query(prompt=sys.argv[1], options=ClaudeAgentOptions(allowed_tools=["Bash"])):
        if isinstance(message, AssistantMessage):
            print(*(block.text for block in message.content if isinstance(block, TextBlock)))


asyncio.run(main())
