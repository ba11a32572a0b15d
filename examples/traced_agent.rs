//! A traced agent: iterations of a loop, calls of a model and of a tool, a memory, and decisions. Run it with
//! `cargo run --example traced_agent`; it needs no network.

#![allow(clippy::print_stdout, unreachable_pub, reason = "an example prints, and a test calls its main function")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tracewire::tracer::agent::{self, MemoryOperation};
use tracewire::tracer::{DummyTracer, TraceOptions, Tracer, TracerError, emit};

/// An agent that looks a fact up, remembers it, and answers from its memory.
#[derive(Default)]
struct Agent {
    memory: BTreeMap<String, String>,
}

impl Agent {
    async fn run(&mut self, question: &str) -> Result<String, TracerError> {
        for number in 1..=4 {
            let turn = agent::iteration(number)?;
            if let Some(answer) = turn.run(self.step(question)).await? {
                return Ok(answer);
            }
        }
        Ok("I don't know.".to_owned())
    }

    /// One turn: recall, decide, act. `None` if another turn is needed.
    async fn step(&mut self, question: &str) -> Result<Option<String>, TracerError> {
        let recall = agent::memory(MemoryOperation::Search, "facts")?;
        recall.record_input(&question)?;
        let known = self.memory.get(question).cloned();
        recall.record_output(&known)?;
        recall.end();

        let reason = if known.is_some() { "the fact is known" } else { "nothing is known yet" };
        let action = if known.is_some() { "answer" } else { "look up" };
        agent::decision("next action", action, &["answer", "look up"], reason)?;

        match known {
            Some(fact) => Ok(Some(call_model(question, &fact).await?)),
            None => {
                let fact = look_up(question)?;
                let remember = agent::memory(MemoryOperation::Create, "facts")?;
                remember.record_output(&fact)?;
                self.memory.insert(question.to_owned(), fact);
                Ok(None)
            }
        }
    }
}

/// Stands for a call of a real model.
async fn call_model(question: &str, fact: &str) -> Result<String, TracerError> {
    let call = agent::llm_call("openai", "gpt-4o")?;
    call.run(async {
        let messages = json!([{ "role": "system", "content": fact }, { "role": "user", "content": question }]);
        call.record_input(&messages)?;
        tokio::task::yield_now().await;
        let answer = format!("It is {fact}.");
        call.record_output(&json!([{ "role": "assistant", "content": answer }]))?;
        agent::record_usage(&call, 21, 5);
        Ok(answer)
    })
    .await
}

fn look_up(question: &str) -> Result<String, TracerError> {
    let tool = agent::tool_call("encyclopedia")?;
    tool.run_sync(|| {
        tool.record_input(&json!({ "query": question }))?;
        let found: Value = json!("Paris");
        tool.record_output(&found)?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    })
}

/// Runs the example.
#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), TracerError> {
    let tracer = DummyTracer::new();
    tracer.init_worker(0)?;
    let task = TraceOptions::new("capital of France").attribute("task.id", 7);
    tracer
        .trace_context(task, async {
            let run = agent::agent_run("encyclopedist")?;
            let answer = run.run(Agent::default().run("What is the capital of France?")).await?;
            emit::reward(if answer.contains("Paris") { 1.0 } else { 0.0 }).map(drop)
        })
        .await?;

    let trace = tracer.last_trace()?;
    for (depth, span) in trace.tree() {
        println!("{:indent$}{}", "", span.name, indent = 2 * depth);
    }
    assert_eq!(trace.spans().iter().filter(|span| span.name.starts_with("iteration")).count(), 2);
    assert!(trace.find("chat gpt-4o").is_some());
    tracer.teardown_worker(0).await
}
