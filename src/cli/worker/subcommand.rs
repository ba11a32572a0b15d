//! Runs `tracewire worker`: connects to the server, starts the jobs, and waits for their end or for an exit signal.

use super::args::WorkerArgs;
use super::environment::CommandEnvironment;
use super::jobs::JobPool;
use super::shutdown::{Shutdown, ShutdownStage};
use super::source::TaskSource;
use anyhow::{Result, anyhow};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

pub(crate) async fn run(args: WorkerArgs) -> Result<ExitCode> {
    let config = args.proxy_args.config()?;
    let source = TaskSource::connect(args.server.client(&config)?, args.api).await?;
    let environment = CommandEnvironment::discover(&source.server, &args, &config).await?;
    let id = args.worker_id.clone().unwrap_or_else(|| format!("worker-{:08x}", fastrand::u32(..)));
    let shutdown = Shutdown::on_signals()?;
    let pool = Arc::new(JobPool { args, source, environment, shutdown, progress: Mutex::default() });
    pool.announce(&id);
    let mut jobs = JoinSet::new();
    for number in 1..=pool.args.jobs {
        // The server assigns one attempt to a worker at a time, so each job is a worker of its own to the server.
        let id = if pool.args.jobs == 1 { id.clone() } else { format!("{id}-{number}") };
        jobs.spawn(Arc::clone(&pool).run_job(id));
    }
    let all_jobs = async {
        while let Some(result) = jobs.join_next().await {
            if let Err(error) = result {
                pool.fail(anyhow!(error).context("a job of the worker panicked"));
            }
        }
    };
    tokio::select! {
        () = all_jobs => {}
        () = pool.shutdown.reached(ShutdownStage::Exiting) => pool.abandon_running(),
    }
    pool.exit_code()
}
