//! Who is in and what each may do: every order of arrival gives one roster, whoever states what.

use std::collections::BTreeSet;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain, Sig};
use swarmkv_protocol::id::{DeviceId, Hash, Hash8, LogId};
use swarmkv_protocol::roster::{
    BadStatement, ChainHead, Extent, Grant, Revoke, Role, Roster, Statement, StatementBody,
};

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[n; 32])
}

fn grant(device: &DeviceKey, role: Role) -> Grant {
    Grant {
        device: device.id(),
        label: "device".into(),
        role,
        prefix: Bytes::default(),
        max_bytes: None,
    }
}

fn founded() -> Roster {
    Roster::found(&key(1), "home", "owner", [0; 16]).expect("a valid genesis")
}

fn issue(roster: &mut Roster, issuer: &DeviceKey, device: &DeviceKey, role: Role) -> Bytes {
    let bytes = roster.grant(issuer, grant(device, role)).expect("may grant");
    assert_eq!(roster.insert(std::slice::from_ref(&bytes)).0.len(), 1);
    bytes
}

#[test]
fn every_order_of_arrival_gives_one_roster() {
    let mut full = founded();
    let mut all = vec![issue(&mut full, &key(1), &key(2), Role::Admin)];
    all.push(issue(&mut full, &key(2), &key(3), Role::Writer));
    all.push(issue(&mut full, &key(1), &key(4), Role::Reader));
    all.push(issue(&mut full, &key(2), &key(4), Role::Writer));
    let mut orders = 0;
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| *c != a && *c != b) {
                let order = [a, b, c, 6 - a - b - c];
                let mut roster = Roster::open(full.genesis_bytes()).expect("same genesis");
                // One at a time, then whatever had to wait once more, as repair does.
                for i in order.into_iter().chain(order).chain(order).chain(order) {
                    roster.insert(&all[i..=i]);
                }
                assert_eq!(roster.hash(), full.hash());
                let view = |r: &Roster| {
                    r.members().map(|m| (m.device, m.role, m.grant)).collect::<Vec<_>>()
                };
                assert_eq!(view(&roster), view(&full));
                orders += 1;
            }
        }
    }
    assert_eq!(orders, 24);
}

#[test]
fn rank_bounds_what_may_be_granted() {
    let mut roster = founded();
    issue(&mut roster, &key(1), &key(2), Role::Admin);
    issue(&mut roster, &key(2), &key(3), Role::Writer);
    let refused = |issuer: u8, role| roster.grant(&key(issuer), grant(&key(9), role)).err();
    assert_eq!(refused(1, Role::Owner), Some(BadStatement::Rank));
    assert_eq!(refused(2, Role::Admin), Some(BadStatement::Rank));
    assert_eq!(refused(3, Role::Reader), Some(BadStatement::Rank));
    assert_eq!(refused(8, Role::Reader), Some(BadStatement::Unknown));
}

#[test]
fn a_forged_or_foreign_statement_is_refused() {
    let mut roster = founded();
    let mut other = Roster::found(&key(1), "home", "owner", [1; 16]).expect("valid");
    let foreign = issue(&mut other, &key(1), &key(2), Role::Writer);
    assert_eq!(roster.insert(&[foreign]).1, [BadStatement::Swarm]);

    let genuine = roster.grant(&key(1), grant(&key(2), Role::Writer)).expect("may grant");
    let (body, _): (Bytes, Sig) = codec::decode(&genuine).expect("sealed");
    let sig = key(2).sign(Domain::Statement, &body);
    let forged = Bytes(codec::encode(&(body, sig)));
    assert_eq!(roster.insert(&[forged]).1, [BadStatement::Signature]);
    assert!(roster.member(&key(2).id()).is_none());
}

#[test]
fn a_path_alone_admits_its_device_elsewhere() {
    let mut full = founded();
    issue(&mut full, &key(1), &key(5), Role::Writer);
    issue(&mut full, &key(1), &key(2), Role::Admin);
    issue(&mut full, &key(2), &key(3), Role::Writer);
    let mut roster = Roster::open(full.genesis_bytes()).expect("same genesis");
    roster.insert(&full.path(&key(3).id()));
    assert_eq!(roster.member(&key(3).id()).map(|m| m.role), Some(Role::Writer));
}

fn revoke(roster: &mut Roster, issuer: &DeviceKey, device: &DeviceKey) -> Bytes {
    let bytes = roster.revoke(issuer, device.id(), Vec::new()).expect("may revoke");
    assert_eq!(roster.insert(std::slice::from_ref(&bytes)).0.len(), 1);
    bytes
}

fn roles(roster: &Roster) -> Vec<(DeviceId, Role)> {
    roster.members().map(|m| (m.device, m.role)).collect()
}

fn is_member(roster: &Roster, device: &DeviceKey) -> bool {
    roster.member(&device.id()).is_some()
}

#[test]
fn only_a_higher_rank_revokes_and_among_admins_the_senior() {
    let mut roster = founded();
    for n in [2, 3] {
        issue(&mut roster, &key(1), &key(n), Role::Admin);
    }
    issue(&mut roster, &key(3), &key(4), Role::Writer);
    let may = |a: u8, b: u8| roster.may_revoke(&key(a).id(), &key(b).id());
    assert!(may(1, 2) && may(1, 3) && may(1, 4), "the owner revokes anyone");
    assert!(may(2, 3) && !may(3, 2), "the admin admitted first outranks the other");
    assert!(may(2, 4) && may(3, 4), "any admin revokes a writer, whoever admitted it");
    assert!(may(4, 4) && may(2, 2) && !may(1, 1), "all but the owner may leave");
    assert!(!may(4, 2) && !may(2, 1) && !may(4, 9));
    let refused = roster.revoke(&key(3), key(2).id(), Vec::new());
    assert_eq!(refused, Err(BadStatement::Rank));
}

#[test]
fn duelling_admins_end_the_same_everywhere() {
    let mut base = founded();
    issue(&mut base, &key(1), &key(2), Role::Admin);
    issue(&mut base, &key(1), &key(3), Role::Admin);
    let (mut left, mut right) = (base.clone(), base.clone());
    // Apart: the senior takes the junior out, the junior takes in a friend and a writer leaves it cold.
    let one = revoke(&mut left, &key(2), &key(3));
    let two = issue(&mut right, &key(3), &key(7), Role::Writer);
    left.insert(std::slice::from_ref(&two));
    right.insert(std::slice::from_ref(&one));
    assert_eq!((left.hash(), roles(&left)), (right.hash(), roles(&right)));
    assert!(!is_member(&left, &key(3)) && !is_member(&left, &key(7)));
    assert!(is_member(&left, &key(2)));
}

#[test]
fn a_revocation_by_someone_revoked_before_it_is_void() {
    let mut base = founded();
    issue(&mut base, &key(1), &key(2), Role::Admin);
    issue(&mut base, &key(2), &key(5), Role::Writer);
    let mut rogue = base.clone();
    let spiteful = revoke(&mut rogue, &key(2), &key(5));
    let backdated = issue(&mut rogue, &key(2), &key(8), Role::Writer);
    // The owner has seen neither.
    revoke(&mut base, &key(1), &key(2));
    let before = base.hash();
    let refused = base.insert(&[spiteful, backdated]).1;
    assert!(refused.iter().all(|bad| !bad.by_all()), "whoever passes it on may not know");
    assert_eq!(base.hash(), before);
    assert!(is_member(&base, &key(5)), "what the admin stated before counts");
    assert!(!is_member(&base, &key(8)) && !is_member(&base, &key(2)));
    // Who saw the spiteful one first comes round.
    rogue.insert(&base.beyond(&rogue.names()));
    assert_eq!((rogue.hash(), roles(&rogue)), (base.hash(), roles(&base)));
}

#[test]
fn a_revoked_key_never_returns() {
    let mut roster = founded();
    issue(&mut roster, &key(1), &key(2), Role::Writer);
    revoke(&mut roster, &key(1), &key(2));
    let again = roster.grant(&key(1), grant(&key(2), Role::Writer));
    assert_eq!(again, Err(BadStatement::Void));
    // Nor by a grant that its issuer made without knowing.
    let mut other = founded();
    issue(&mut other, &key(1), &key(2), Role::Writer);
    issue(&mut other, &key(1), &key(3), Role::Admin);
    issue(&mut other, &key(3), &key(2), Role::Writer);
    roster.insert(&other.beyond(&roster.names()));
    assert!(!is_member(&roster, &key(2)));
}

#[test]
fn a_proof_of_revocation_convinces_whoever_knows_the_swarm() {
    let mut full = founded();
    issue(&mut full, &key(1), &key(4), Role::Writer);
    issue(&mut full, &key(1), &key(2), Role::Admin);
    let mut target = full.clone();
    issue(&mut full, &key(2), &key(5), Role::Reader);
    revoke(&mut full, &key(2), &key(4));
    target.insert(&full.proof_of_revocation(&key(4).id()));
    assert!(target.revocation(&key(4).id()).is_some_and(|revoked| revoked.by == key(2).id()));
    // Also one who knows nothing but the genesis and its own grant.
    let mut fresh = Roster::open(full.genesis_bytes()).expect("same genesis");
    fresh.insert(&full.path(&key(4).id()));
    fresh.insert(&full.proof_of_revocation(&key(4).id()));
    assert!(!is_member(&fresh, &key(4)));
}

#[test]
fn a_forged_cut_is_blamed_on_whoever_hands_it_on() {
    let mut roster = founded();
    issue(&mut roster, &key(1), &key(2), Role::Writer);
    let mut forge = |heads: Vec<Bytes>, statements: Vec<Hash>| {
        let last = roster.member(&key(2).id()).expect("a member").grant;
        let revoke = Revoke { device: key(2).id(), heads, statements };
        let statement = Statement {
            version: 1,
            swarm: roster.swarm(),
            issuer: key(1).id(),
            number: 2,
            prev: last,
            body: StatementBody::Revoke(revoke),
        };
        let body = codec::encode(&statement);
        let sig = key(1).sign(Domain::Statement, &body);
        let refused = roster.insert(&[Bytes(codec::encode(&(Bytes(body), sig)))]).1;
        refused.last().is_some_and(BadStatement::by_all)
    };
    assert!(forge(vec![Bytes(vec![0x82; 100])], Vec::new()), "no header");
    assert!(forge(vec![Bytes(Vec::new()); 200], Vec::new()), "too many");
    assert!(forge(Vec::new(), vec![Hash::new([2; 32]), Hash::new([1; 32])]), "out of order");
    assert!(forge(Vec::new(), vec![Hash::new([1; 32]); 40]), "too many ends");
}

#[test]
fn no_admin_fills_the_roster() {
    use swarmkv_protocol::limits::MAX_ADMIN_STATEMENTS;
    let mut roster = founded();
    issue(&mut roster, &key(1), &key(2), Role::Admin);
    let mut flood = Vec::new();
    let mut hostile = roster.clone();
    for n in 0..MAX_ADMIN_STATEMENTS + 5 {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let device = DeviceKey::from_seed(&seed);
        let statement = hostile.grant(&key(2), grant(&device, Role::Reader)).expect("may grant");
        hostile.insert(std::slice::from_ref(&statement));
        flood.push(statement);
    }
    roster.insert(&flood);
    assert_eq!(roster.members().count(), MAX_ADMIN_STATEMENTS + 2);
    // The owner still ends it, and everything after the first statement goes.
    revoke(&mut roster, &key(1), &key(2));
    assert!(!is_member(&roster, &key(2)));
}

/// A small source of chance: one seed, one history.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).expect("small")
    }
}

/// Everything that a handful of devices stated, each by what it knew then; now and then one goes back to
/// an older state of its own and states otherwise.
fn history(chance: &mut Chance, genesis: &Roster) -> Vec<Bytes> {
    let keys: Vec<DeviceKey> = (1..=7).map(key).collect();
    let mut views = vec![genesis.clone(); keys.len()];
    let mut old = views.clone();
    let mut all = Vec::new();
    for _ in 0..chance.below(30) + 8 {
        let (a, b) = (chance.below(keys.len()), chance.below(keys.len()));
        match chance.below(12) {
            0..6 => {
                let role = [Role::Reader, Role::Writer, Role::Admin][chance.below(3)];
                all.extend(views[a].grant(&keys[a], grant(&keys[b], role)).ok());
            }
            6..8 => all.extend(views[a].revoke(&keys[a], keys[b].id(), Vec::new()).ok()),
            8 => old[a] = views[a].clone(),
            9 => views[a] = old[a].clone(),
            _ => {
                let theirs = views[b].beyond(&views[a].names());
                views[a].insert(&theirs);
            }
        }
        if let Some(last) = all.last() {
            views[a].insert(std::slice::from_ref(last));
        }
    }
    all
}

/// Two rosters tell each other what the other lacks, as repair does.
fn exchange(rosters: &mut [Roster], a: usize, b: usize) {
    let (from_a, from_b): (Vec<Hash8>, Vec<Hash8>) = (rosters[a].names(), rosters[b].names());
    let (to_b, to_a) = (rosters[a].beyond(&from_b), rosters[b].beyond(&from_a));
    for (to, statements) in [(a, to_a), (b, to_b)] {
        let refused = rosters[to].insert(&statements).1;
        assert!(refused.iter().all(|bad| !bad.by_all()), "honest: {refused:?}");
    }
}

#[test]
fn whatever_was_stated_and_however_it_arrives_there_is_one_roster() {
    let (mut histories, mut orders, mut revoked) = (0, 0, 0);
    for seed in 0..400 {
        let mut chance = Chance(seed);
        let genesis = founded();
        let all = history(&mut chance, &genesis);
        let mut replicas = vec![genesis.clone(); 4];
        for replica in &mut replicas {
            // Each hears of a part, one by one, in an order of its own.
            let mut heard = all.clone();
            while !heard.is_empty() && chance.below(20) > 0 {
                let statement = heard.swap_remove(chance.below(heard.len()));
                replica.insert(&[statement]);
            }
            orders += 1;
        }
        // One has heard everything, in order, and again.
        for statement in all.iter().chain(&all).chain(&all) {
            replicas[0].insert(std::slice::from_ref(statement));
        }
        for _ in 0..6 {
            for a in 0..4 {
                for b in (0..4).filter(|b| *b != a) {
                    exchange(&mut replicas, a, b);
                }
            }
        }
        let hashes: BTreeSet<Hash> = replicas.iter().map(Roster::hash).collect();
        assert_eq!(hashes.len(), 1, "seed {seed}: replicas differ");
        let views: BTreeSet<Vec<(DeviceId, Role)>> = replicas.iter().map(roles).collect();
        assert_eq!(views.len(), 1, "seed {seed}");
        revoked += replicas[0].revoked().count();
        histories += 1;
    }
    assert!(revoked > 100, "the histories say little: {revoked} revocations");
    println!(
        "{histories} histories, {orders} orders of arrival, {revoked} revocations: one roster each"
    );
}

#[test]
fn a_revocation_that_carries_headers_of_an_earlier_form_still_stands() {
    let mut roster = founded();
    issue(&mut roster, &key(1), &key(2), Role::Writer);
    let signed = |signer: u8| {
        let body = codec::encode(&(1u8, 2u8, Bytes(b"no header of this form".to_vec())));
        let sig = key(signer).sign(Domain::Commit, &body);
        Bytes(codec::encode(&(Bytes(body), sig)))
    };
    let forged = roster.revoke(&key(1), key(2).id(), vec![signed(3)]);
    assert!(forged.is_err(), "signed by somebody else");
    let bytes = roster.revoke(&key(1), key(2).id(), vec![signed(2)]).expect("may revoke");
    assert_eq!(roster.insert(&[bytes]).0.len(), 1);
    assert!(roster.revocation(&key(2).id()).is_some());
    let log = LogId { author: key(2).id(), epoch: 1, shard: 0 };
    assert_eq!(roster.extent(&log), Extent::Nothing);
}

#[test]
fn a_rosters_hash_is_that_of_the_heads_of_its_chains() {
    let mut roster = founded();
    let empty = roster.hash();
    issue(&mut roster, &key(1), &key(2), Role::Admin);
    let last = issue(&mut roster, &key(1), &key(3), Role::Writer);
    let admins = issue(&mut roster, &key(2), &key(4), Role::Writer);
    let name = |bytes: &Bytes| crypto::hash(Domain::StatementName, &[bytes]);
    let mut heads = vec![
        ChainHead { issuer: key(1).id(), number: 2, name: name(&last) },
        ChainHead { issuer: key(2).id(), number: 1, name: name(&admins) },
    ];
    heads.sort_unstable();
    assert_eq!(roster.heads(), heads);
    let mut listed = roster.swarm().as_bytes().to_vec();
    for head in &heads {
        listed.extend(head.issuer.as_bytes());
        listed.extend(head.number.to_be_bytes());
        listed.extend(head.name.as_bytes());
    }
    assert_eq!(roster.hash(), crypto::hash(Domain::Roster, &[&listed]));
    assert_ne!(roster.hash(), empty);
}

#[test]
fn both_ends_of_a_forked_chain_are_in_the_hash() {
    let base = founded();
    let (mut one, mut other) = (base.clone(), base);
    let a = issue(&mut one, &key(1), &key(2), Role::Writer);
    let b = issue(&mut other, &key(1), &key(3), Role::Writer);
    let (first, second) = (one.hash(), other.hash());
    assert_ne!(first, second);
    one.insert(&[b]);
    other.insert(&[a]);
    assert_eq!((one.hash(), one.heads().len()), (other.hash(), 2));
    assert!(one.hash() != first && one.hash() != second);
}
