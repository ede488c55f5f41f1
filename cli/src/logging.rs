//! Logs of what happens inside, on standard error. What a person wants to read is talk, not log.

use std::io;

use tracing_subscriber::EnvFilter;

/// Turns logging on: `RUST_LOG` decides, else the count of `-v`, else warnings of our own code.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "error,swarmkv=warn,swarmkv_node=warn,swarmkv_protocol=warn",
        1 => "warn,swarmkv=info,swarmkv_node=info,swarmkv_protocol=info",
        2 => "info,swarmkv=debug,swarmkv_node=debug,swarmkv_protocol=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !plain && io::IsTerminal::is_terminal(&io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(io::stderr)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}
