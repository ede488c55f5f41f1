//! What `--help` says is documentation: any change of it is seen here.

use crate::support::Device;

const COMMANDS: [&str; 17] = [
    "demo", "init", "up", "invite", "join", "put", "get", "del", "ls", "import", "status", "peers",
    "members", "revoke", "leave", "scrub", "bench",
];

#[test]
fn help_of_the_whole() {
    insta::assert_snapshot!(Device::new().run(["--help"]).quietly().text());
}

#[test]
fn help_of_every_command() {
    for command in COMMANDS {
        let help = Device::new().run([command, "--help"]).quietly();
        insta::assert_snapshot!(format!("help_{command}"), help.text());
    }
}

#[test]
fn help_fits_80_columns_and_names_an_example() {
    for command in COMMANDS {
        let help = Device::new().run([command, "--help"]).quietly();
        for line in help.text().lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
        assert!(help.text().contains(&format!("  swarmkv {command}")), "{command}");
    }
}

#[test]
fn no_command_is_a_usage_error_that_shows_help() {
    let nothing: [&str; 0] = [];
    let ran = Device::new().run(nothing);
    assert_eq!((ran.code, ran.text()), (2, ""));
    assert!(ran.err.contains("Usage: swarmkv"), "{}", ran.err);
}
