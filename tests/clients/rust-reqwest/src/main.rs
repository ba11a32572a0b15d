//! Rust's reqwest, blocking: JSON both ways, and an upload.

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = std::env::args().nth(1).ok_or("usage: rust-reqwest BASE")?;
    let client = reqwest::blocking::Client::new();
    let weather: Value = client.get(format!("{base}/weather?city=Paris")).send()?.error_for_status()?.json()?;
    assert_eq!(weather["city"], "Paris");
    let ask = json!({ "model": "mock", "messages": [{ "role": "user", "content": "hello" }] });
    let answer: Value = client.post(format!("{base}/v1/chat/completions")).json(&ask).send()?.json()?;
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
    let upload: Value = client.post(format!("{base}/upload")).body("x".repeat(100_000)).send()?.json()?;
    assert_eq!(upload["received"], 100_000);
    println!("done");
    Ok(())
}
