//! Ways to become root through the root helper. Each test is an attack that succeeded in an independent review,
//! or a variant of one. Each first checks that its setup is right, and then that the attack fails.

mod attacker;
mod daemon_impostor;
mod directories;
mod downtime;
mod foreign_daemon;
mod stopped_record;
mod store_owner;
mod store_root;
