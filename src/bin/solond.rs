//! `solond`: the aggregation daemon.

fn main() -> std::process::ExitCode {
    solon::daemon::main(std::env::args_os(), std::env::vars_os())
}
