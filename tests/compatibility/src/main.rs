//! The `compatibility` command: runs a corpus, or writes the ledger of fields.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dhow_compatibility::corpus::{self, Corpus};
use dhow_compatibility::{Validator, ledger};

/// Measures how much of Envoy's configuration dhow-proxy takes.
#[derive(Parser)]
#[command(name = "compatibility")]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a corpus of inputs with known answers and print agreed / differs / unsupported per family.
    Corpus {
        /// The folder; it has `accept/` or `route-check/` in it.
        folder: PathBuf,
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        proxy: PathBuf,
        /// The dhow binary.
        #[arg(long, default_value = "target/debug/dhow")]
        dhow: PathBuf,
        /// Print every case, not only those that differ.
        #[arg(long)]
        all: bool,
        /// Write the numbers as a page.
        #[arg(long)]
        page: Option<PathBuf>,
    },
    /// Write the page that says of every field whether it is honoured, warned about or refused.
    Ledger {
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        proxy: PathBuf,
        /// The page.
        #[arg(long, default_value = ledger::PAGE)]
        page: PathBuf,
        /// Compare instead of writing; fail when the page is not current.
        #[arg(long)]
        check: bool,
        /// Print fields whose sample was refused for its value.
        #[arg(long)]
        verbose: bool,
    },
    /// Ask Envoy about every field as well, and print each on which the two programs disagree.
    Verdicts {
        /// The dhow-proxy binary.
        #[arg(long, default_value = "target/debug/dhow-proxy")]
        proxy: PathBuf,
        /// The Envoy binary.
        #[arg(long)]
        envoy: PathBuf,
        /// Print fields that both refuse with different words as well.
        #[arg(long)]
        words: bool,
    },
}

fn main() -> ExitCode {
    match act(Command::parse().action) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compatibility: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<bool> {
    match action {
        Action::Corpus { folder, proxy, dhow, all, page } => {
            let corpus = Corpus { folder, validator: Validator::new(&proxy)?, dhow, print_all: all, page };
            corpus::run(&corpus)
        }
        Action::Ledger { proxy, page, check, verbose } => {
            let ledger = ledger::collect(&Validator::new(&proxy)?, verbose)?;
            if check { ledger::check(&ledger, &page) } else { ledger::write(&ledger, &page).map(|()| true) }
        }
        Action::Verdicts { proxy, envoy, words } => {
            ledger::verdicts(&Validator::new(&proxy)?, &Validator::new(&envoy)?, words)
                .map(|(_, agree)| agree)
        }
    }
}
