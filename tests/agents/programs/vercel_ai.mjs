// An agent of the Vercel AI SDK with a tool for commands: vercel_ai.mjs TASK.
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, stepCountIs, tool } from 'ai';
import { execSync } from 'node:child_process';
import { z } from 'zod';

const shell = tool({
    description: 'Runs a command and returns what it prints.',
    inputSchema: z.object({ command: z.string() }),
    execute: async ({ command }) => execSync(command).toString(),
});
const openai = createOpenAI({ apiKey: 'dummy', baseURL: process.env.OPENAI_BASE_URL });
const { text } = await generateText({ model: openai('gpt-5'), tools: { shell }, stopWhen: stepCountIs(9), prompt: process.argv[2] });
console.log(text);
