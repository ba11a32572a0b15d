//! A relay in front of a model server that holds its answers until a test lets them pass, so that a test decides what
//! has happened before what. It understands no HTTP but the first word of a request and the end of an event.

use super::{connect, endpoint, find};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// What of the answers to POST requests passes. Requests, and the answers to others, always do.
#[derive(Clone, Copy)]
enum Passage {
    /// The rest of as many server-sent events; the head of the answer counts to the first. Zero: nothing passes.
    Events(usize),
    /// All of them.
    Open,
}

/// A relay to one endpoint.
pub struct Gate {
    /// Where it listens.
    pub address: SocketAddr,
    passage: Arc<(Mutex<Passage>, Condvar)>,
}

impl Gate {
    /// A closed gate in front of `target`.
    pub fn before(target: SocketAddr) -> Self {
        let passage = Arc::new((Mutex::new(Passage::Events(0)), Condvar::new()));
        let shared = Arc::clone(&passage);
        let address = endpoint(move |mut agent| {
            let mut server = connect(target);
            let (mut requests, mut onward) = (agent.try_clone().unwrap(), server.try_clone().unwrap());
            let posts = Arc::new(AtomicBool::new(false));
            let asks = Arc::clone(&posts);
            std::thread::spawn(move || {
                let mut buffer = [0; 16384];
                while let Ok(read @ 1..) = requests.read(&mut buffer) {
                    for (word, is_post) in [(&b"POST "[..], true), (b"GET ", false)] {
                        if buffer[..read].starts_with(word) {
                            asks.store(is_post, Ordering::SeqCst);
                        }
                    }
                    if onward.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = onward.shutdown(Shutdown::Both);
            });
            let mut buffer = [0; 16384];
            while let Ok(read @ 1..) = server.read(&mut buffer) {
                let mut rest = &buffer[..read];
                while !rest.is_empty() {
                    let passes = if posts.load(Ordering::SeqCst) { Self::allowed(&shared, rest) } else { rest.len() };
                    if agent.write_all(&rest[..passes]).is_err() {
                        return;
                    }
                    rest = &rest[passes..];
                }
            }
            let _ = agent.shutdown(Shutdown::Both);
        });
        Self { address, passage }
    }

    /// Waits until some of `bytes` may pass; how many.
    fn allowed((passage, changed): &(Mutex<Passage>, Condvar), bytes: &[u8]) -> usize {
        let closed = |passage: &mut Passage| matches!(passage, Passage::Events(0));
        let mut passage = changed.wait_while(passage.lock().unwrap(), closed).unwrap();
        match (&mut *passage, find(bytes, b"\n\n")) {
            (Passage::Events(left), Some(end)) => {
                *left -= 1;
                end + 2
            }
            _ => bytes.len(),
        }
    }

    /// Lets as many events pass, and nothing after them.
    pub fn pass_events(&self, count: usize) {
        self.set(Passage::Events(count));
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.set(Passage::Open);
    }

    fn set(&self, passage: Passage) {
        *self.passage.0.lock().unwrap() = passage;
        self.passage.1.notify_all();
    }
}
