//! The load: what is asked over connections, how often, and how many at once.

use crate::client::{Ask, Client, Cut, Seen, Way};
use anyhow::{Context, Result, bail};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Of every exchange.
    pub latencies_us: Vec<u64>,
    /// Of every chunk of a stream, from its making to its arrival.
    pub delays_us: Vec<u64>,
    /// Exchanges that failed.
    pub errors: u64,
    /// Of those, the ones whose answer had begun.
    pub cut: u64,
    /// Why the first of them failed.
    pub why: Option<String>,
    /// Body bytes, both ways.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Load {
    fn merge(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.delays_us.extend(other.delays_us);
        self.errors += other.errors;
        self.cut += other.cut;
        self.why = self.why.take().or(other.why);
        self.bytes += other.bytes;
    }

    /// Counts an exchange that began then.
    pub fn note(&mut self, result: Result<Seen>, began: Instant) {
        match result {
            Ok(seen) => {
                self.latencies_us.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                self.delays_us.extend(seen.delays_us);
                self.bytes += seen.bytes;
            }
            Err(error) => {
                self.errors += 1;
                self.cut += u64::from(error.is::<Cut>());
                self.why.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// `workers` connections that ask again and again, each after its answer.
pub async fn closed_loop(way: &Way, ask: &Ask, workers: usize, lasting: Duration) -> Result<Load> {
    let mut clients = Vec::new();
    for _ in 0..workers {
        clients.push(way.connect(false).await.context("no connection")?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (way, ask) = (way.clone(), ask.clone());
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                let result = client.exchange(way.target, &ask).await;
                let failed = result.is_err();
                load.note(result, started);
                if failed {
                    match way.connect(false).await {
                        Ok(new) => client = new,
                        Err(_) => return load,
                    }
                }
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// A new connection for every exchange.
pub async fn handshakes(way: &Way, workers: usize, lasting: Duration) -> Result<Load> {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let way = way.clone();
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                let result = async { way.connect(false).await?.exchange(way.target, &Ask::Json).await };
                load.note(result.await, started);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// `rate` exchanges a second, whether the last has been answered or not.
pub async fn paced(way: &Way, rate: u32, lasting: Duration) -> Result<Load> {
    paced_while(way, rate, |elapsed| elapsed < lasting).await
}

/// The same, for as long as they are wanted. That is asked with the time since their beginning.
pub async fn paced_while(way: &Way, rate: u32, are_wanted: impl Fn(Duration) -> bool) -> Result<Load> {
    let idle = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..16 {
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(way.connect(false).await?);
    }
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut tasks = JoinSet::new();
    while are_wanted(began.elapsed()) {
        ticks.tick().await;
        let (way, idle) = (way.clone(), Arc::clone(&idle));
        tasks.spawn(async move {
            let mut load = Load::default();
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let client = match taken {
                Some(client) => Ok(client),
                None => way.connect(false).await,
            };
            let Ok(mut client) = client else {
                load.errors += 1;
                return load;
            };
            let started = Instant::now();
            load.note(client.exchange(way.target, &Ask::Json).await, started);
            if load.errors == 0 {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// As `paced`, with an answer of 128k prompt ids a second beside it, which is not measured.
pub async fn paced_beside_long_answers(way: &Way, rate: u32, lasting: Duration) -> Result<Load> {
    let mut client = way.connect(false).await?;
    let target = way.target;
    let beside: tokio::task::JoinHandle<Result<()>> = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            client.exchange(target, &Ask::Long { prompt_ids: 128 * 1024 }).await?;
        }
    });
    let load = paced(way, rate, lasting).await?;
    if beside.is_finished() {
        bail!("the long answers ended: {:?}", beside.await);
    }
    beside.abort();
    Ok(load)
}

/// `count` exchanges at once, each on a connection of its own; connections are made before the clock starts.
pub async fn at_once(way: &Way, ask: &Ask, count: usize) -> Result<Load> {
    let clients = connections(way, count).await?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (way, ask) = (way.clone(), ask.clone());
        tasks.spawn(async move {
            let mut load = Load::default();
            let started = Instant::now();
            load.note(client.exchange(way.target, &ask).await, started);
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// Connections that have made one exchange each.
pub async fn used_connections(way: &Way, count: usize) -> Result<Vec<Client>> {
    let mut clients = connections(way, count).await?;
    for client in &mut clients {
        client.exchange(way.target, &Ask::Download(1)).await?;
    }
    Ok(clients)
}

async fn connections(way: &Way, count: usize) -> Result<Vec<Client>> {
    let connections = connections_of(way, (0..count).map(|_| way.next_rollout())).await?;
    Ok(connections.into_iter().map(|(_, client)| client).collect())
}

/// A connection of each of these rollouts, in any order.
pub async fn connections_of(way: &Way, rollouts: impl Iterator<Item = String>) -> Result<Vec<(String, Client)>> {
    let mut clients = Vec::new();
    let mut tasks = JoinSet::new();
    for rollout in rollouts {
        if tasks.len() == 64
            && let Some(done) = tasks.join_next().await
        {
            clients.push(done??);
        }
        let way = way.clone();
        tasks.spawn(async move {
            let client = way.connect_as(false, &rollout).await?;
            anyhow::Ok((rollout, client))
        });
    }
    while let Some(done) = tasks.join_next().await {
        clients.push(done??);
    }
    Ok(clients)
}

/// One HTTP/2 connection with `streams` exchanges under way at any time.
pub async fn multiplexed(way: &Way, streams: usize, lasting: Duration) -> Result<Load> {
    let connection = way.connect(true).await?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (target, mut client) = (way.target, connection.share().context("no HTTP/2")?);
        tasks.spawn(async move {
            let mut load = Load::default();
            while began.elapsed() < lasting {
                let started = Instant::now();
                load.note(client.exchange(target, &Ask::Json).await, started);
            }
            load
        });
    }
    Ok(gather(tasks, began).await)
}

/// What all tasks measured together.
pub async fn gather(mut tasks: JoinSet<Load>, began: Instant) -> Load {
    let mut all = Load::default();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(load) => all.merge(load),
            Err(_) => all.errors += 1,
        }
    }
    all.elapsed = began.elapsed();
    all
}
