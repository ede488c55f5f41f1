//! Tickets and ranks: whom they admit, how often, how long, and what the admitted may do.

use std::time::Duration;

use swarmkv_tests::{Device, connected, equal, until};

#[test]
fn a_used_ticket_says_who_used_it() {
    let a = Device::new("a").founded();
    let ticket = a.invite(&[]);
    let _ = Device::new("phone").join(&ticket).well();
    Device::new("tablet").join(&ticket).fails(5, "already used by \"phone\"");
    assert_eq!(a.status()["members"], 2);
}

#[test]
fn of_two_that_redeem_one_ticket_at_once_one_is_admitted() {
    let a = Device::new("a").founded();
    for _ in 0..3 {
        let before = a.status()["members"].as_u64().expect("a number");
        let ticket = a.invite(&[]);
        let rivals = [Device::new("left"), Device::new("right")];
        let codes: Vec<i32> = std::thread::scope(|scope| {
            let joins: Vec<_> =
                rivals.iter().map(|rival| scope.spawn(|| rival.join(&ticket).code)).collect();
            joins.into_iter().map(|join| join.join().expect("it ends")).collect()
        });
        assert!(codes == [0, 5] || codes == [5, 0], "{codes:?}");
        assert_eq!(a.status()["members"], before + 1);
    }
}

#[test]
fn a_ticket_for_two_admits_two() {
    let a = Device::new("a").founded();
    let ticket = a.invite(&["--uses", "2"]);
    let _ = Device::new("one").join(&ticket).well();
    let _ = Device::new("two").join(&ticket).well();
    Device::new("three").join(&ticket).fails(5, "already used by \"two\"");
}

#[test]
fn a_ticket_to_be_confirmed_admits_only_whom_a_person_confirmed() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    let a = Device::new("a").founded();
    for (answer, code) in [("n", 5), ("y", 0)] {
        let mut asking = a
            .command(["invite", "--confirm"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut ticket = String::new();
        let mut out = BufReader::new(asking.stdout.take().expect("piped"));
        out.read_line(&mut ticket).expect("a ticket");
        let b = Device::new("phone");
        let joined = std::thread::scope(|scope| {
            let join = scope.spawn(|| b.join(ticket.trim()));
            // Nobody is let in before the answer.
            std::thread::sleep(Duration::from_millis(1500));
            assert_eq!(a.status()["members"], 1);
            let mut stdin = asking.stdin.take().expect("piped");
            writeln!(stdin, "{answer}").expect("it listens");
            join.join().expect("it ends")
        });
        assert_eq!(joined.code, code, "{}", joined.err);
        if code == 0 {
            assert!(asking.wait().expect("it ends").success());
        } else {
            let _ = asking.kill();
            let _ = asking.wait();
        }
    }
    assert_eq!(a.status()["members"], 2);
}

#[test]
fn an_expired_ticket_admits_nobody() {
    let a = Device::new("a").founded();
    let ticket = a.invite(&["--expires", "1s"]);
    // Not synchronisation: a ticket's time is what is tested, and it passes on the wall.
    std::thread::sleep(Duration::from_millis(1100));
    Device::new("late").join(&ticket).fails(5, "expired");
    assert_eq!(a.status()["members"], 1);
}

#[test]
fn a_device_that_lost_the_answer_gets_the_same_one_again() {
    let mut a = Device::at_a_fixed_port("a").founded();
    let ticket = a.invite(&[]);
    let mut b = Device::new("b");
    let _ = b.join(&ticket).well();
    // As after a crash between the grant and its arrival: the key is there, the swarm is not. The
    // inviting peer, too, has been killed in between.
    std::fs::remove_dir_all(b.dir().join("store")).expect("the store goes");
    std::fs::remove_file(b.dir().join("swarm")).expect("the note goes");
    a.kill();
    a.up();
    let _ = b.join(&ticket).well();
    assert_eq!(a.status()["members"], 2, "one grant, not two");
    b.up();
    connected(&[&a, &b]);
    let version = b.put("k", "v");
    assert_eq!(a.get_at_least("k", &version), "v");
    Device::new("c").join(&ticket).fails(5, "already used by \"b\"");
}

#[test]
fn a_reader_reads_and_may_not_write() {
    let a = Device::new("a").founded();
    let mut reader = Device::new("reader").admitted_by(&a, &["--role", "reader"]);
    reader.up();
    let version = a.put("k", "v");
    assert_eq!(reader.get_at_least("k", &version), "v");
    reader.run(["put", "mine", "no"]).fails(5, "reader");
    reader.run(["del", "k"]).fails(5, "reader");
    reader.feed(["import", "-"], b"{\"key\":\"k\",\"value\":\"no\"}\n").fails(5, "reader");
    equal(&[&a, &reader]);
    assert_eq!((a.get("mine"), a.get("k").as_deref()), (None, Some("v")));
}

#[test]
fn a_writer_with_a_prefix_may_not_write_outside_it() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &["--prefix", "photos/"]);
    b.up();
    connected(&[&a, &b]);
    let version = b.put("photos/cat", "meow");
    assert_eq!(a.get_at_least("photos/cat", &version), "meow");
    b.run(["put", "notes/cat", "no"]).fails(5, "outside its prefix");
    b.run(["put", "photos", "no"]).fails(5, "outside its prefix");
    let theirs = a.put("notes/dog", "woof");
    assert_eq!(b.get_at_least("notes/dog", &theirs), "woof");
    b.run(["del", "notes/dog"]).fails(5, "outside its prefix");
    equal(&[&a, &b]);
    assert_eq!(a.get("notes/cat"), None);
}

#[test]
fn an_admin_admits_writers_but_no_admins() {
    let a = Device::new("a").founded();
    let mut admin = Device::new("admin").admitted_by(&a, &["--role", "admin"]);
    admin.up();
    admin.run(["invite", "--role", "admin"]).fails(5, "may not invite");
    let mut c = Device::new("c").admitted_by(&admin, &[]);
    c.up();
    until("the founder has heard of it", || a.status()["members"] == 3);
    let version = c.put("k", "v");
    assert_eq!(a.get_at_least("k", &version), "v");
}
