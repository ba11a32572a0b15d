//! `tracewire ca`: prints the CA certificate or its path, never the private key.

use super::settings::read_config;
use super::show;
use crate::app::ca_folder;
use crate::tls::CertAuthority;
use crate::tls::certificate_path;
use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `ca`.
#[derive(Args)]
#[command(after_help = "Example:\n  tracewire ca export --format pem > tracewire-ca.pem")]
pub(super) struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
    /// The settings file; tls.ca_dir sets the CA's folder
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The CA's folder [default: ca in the data folder]
    #[arg(long, value_name = "DIR", global = true)]
    ca_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum CaCommand {
    /// Print the path of the public certificate; creates the CA if there is none
    Path,
    /// Write the public certificate to stdout; creates the CA if there is none
    Export {
        /// The encoding of the certificate
        #[arg(long, value_enum, default_value_t = CertificateFormat::Pem)]
        format: CertificateFormat,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum CertificateFormat {
    Pem,
    Der,
}

pub(super) fn run(args: &CaArgs) -> Result<ExitCode> {
    let mut config = read_config(args.config.as_deref())?;
    config.tls.ca_dir = args.ca_dir.clone().or(config.tls.ca_dir);
    let folder = ca_folder(&config);
    let authority = CertAuthority::open_or_create(&folder).context("cannot open or create the CA")?;
    match args.command {
        CaCommand::Path => show::out(format!("{}\n", certificate_path(&folder).display()))?,
        CaCommand::Export { format: CertificateFormat::Pem } => show::out(authority.ca_pem())?,
        CaCommand::Export { format: CertificateFormat::Der } => show::out(authority.ca_der())?,
    }
    Ok(ExitCode::SUCCESS)
}
