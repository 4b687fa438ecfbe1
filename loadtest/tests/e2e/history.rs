//! Random histories on a hot keyspace, kept in step by a lane: every kind of write, short lives, pipelines, blocks, scripts, blocked clients, flips both
//! ways, and (in one variant) connections killed under the lane. At the end both servers must hold the same; and on the way replies are checked:
//! see `crossfade_loadtest::history`.

use crossfade_loadtest::history::load::{Load, Mix};
use crossfade_loadtest::history::{Random, seed, settle_deadlines};
use crossfade_loadtest::rig::{MIGRATION, Rig, STEP};
use crossfade_loadtest::server::{Kind, RealServer, end_clients};
use crossfade_loadtest::skip;

fn random_history(target: Kind, flips: usize, kills: bool) {
    let seed = seed();
    let rig = Rig::start(target);
    // Keys from before the proxy: the first write that touches one must copy it first.
    Mix::LANE.fill(&mut Random(seed), 3000, &mut rig.source.connection());
    let reference = RealServer::start(Kind::Redis);
    let load = Load::start(Mix::LANE, rig.proxy.port, reference.port, seed, kills);
    rig.create();
    rig.advance_to("migrate");
    rig.authority("target");
    for round in 0..flips {
        load.progress(3000);
        if kills {
            // As a network failure would.
            end_clients(if round % 2 == 0 { rig.source.port } else { rig.target.port }, "crossfade/lane");
            load.progress(1000);
        }
        rig.rollback();
        load.progress(3000);
        rig.approve("migrate");
        rig.proxy.when_possible(&["migration", "advance", MIGRATION, "--to", "migrate"], STEP);
        rig.authority("target");
    }
    load.progress(2000);
    let (commands, judged) = load.finish();
    assert!(judged > commands / 10, "{judged} replies checked of {commands}");
    let now = rig.drained();
    settle_deadlines(&rig);
    let keys = rig.assert_equal();
    eprintln!(
        "{commands} commands, {judged} replies checked, {keys} keys equal, {} flips, dirtied {}, reads compared {}, divergent reads {}",
        now["flips"].as_array().map_or(0, Vec::len),
        now["lane"]["dirtied"],
        now["lane"]["reads_compared"],
        now["lane"]["read_divergences"],
    );
    if !kills {
        let named = rig.proxy.cli(&["migration", "divergences", MIGRATION]);
        assert_eq!(now["lane"]["read_divergences"], 0, "a comparison reported a false difference: {named:?}");
    }
}

#[test]
fn random_commands_through_flips_leave_both_servers_equal() {
    random_history(Kind::Redis, 3, false);
}

#[test]
fn random_commands_through_flips_to_valkey_leave_both_servers_equal() {
    if let Err(why) = Kind::Valkey.binary() {
        skip!("{why}");
    }
    random_history(Kind::Valkey, 3, false);
}

#[test]
fn random_commands_while_lane_connections_are_killed_leave_both_servers_equal() {
    random_history(Kind::Redis, 3, true);
}
