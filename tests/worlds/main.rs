//! Tests with real stores, daemons and supervisors, in small isolated machines. They need root and the output of
//! `scripts/roots`.

#[path = "../support/mod.rs"]
mod support;

mod action;
mod backend_faults;
mod bad_input;
mod benchmark;
mod commit_timeouts;
mod daemon_restart;
mod dedup;
mod delta;
mod delta_faults;
mod demo;
mod failure_messages;
mod guix_edge_cases;
mod guix_fixtures;
mod guix_save_restore;
mod guix_supervisors;
mod hostile;
mod inspect_blame;
mod job_summary;
mod nix_fixtures;
mod output_escaping;
mod plain_store;
mod privilege_escalation;
mod profiles;
mod quarantine;
mod read_only_store;
mod restore_require;
mod root_helper_boundary;
mod root_helper_disclosure;
mod root_helper_inputs;
mod save_limits;
mod save_policy;
mod save_restore;
mod shared_directory;
mod signatures;
mod snapshot_format;
mod stall_timeouts;
mod step_faults;
mod stop_record;
mod sudo;
mod systemd_watchdog;
mod tar_recipe;
mod verify_and_restore;
