//! What is kept, as `verify` and `check` find it: damage is told, and looking changes nothing.

use crate::{
    command::run,
    harness::{Bench, boot, jpeg, reading},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{fs, path::Path};

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A folder that a bridge has left, with an image and some readings; its settings are in `b.toml`.
async fn left() -> tempfile::TempDir {
    let bench = Bench::start().await;
    let mut pi = bench.device("pi").await;
    pi.listen().await;
    let (meta, picture) = jpeg("pi", "desk", boot(1), 0);
    pi.say("image/desk", picture).await;
    pi.acks(vec![meta.stamp.id]).await;
    for seq in 0..3 {
        pi.say("reading/env", reading(boot(1), seq).to_json()).await;
    }
    pi.acks((0..3).map(|seq| reading(boot(1), seq).stamp.id).collect()).await;
    drop(pi);
    let dir = bench.close().await;
    // SQLite's own thread puts its log away a moment after the bridge has let go of the catalog.
    let log = dir.path().join("data/catalog.sqlite-wal");
    for _ in 0..1000 {
        if !log.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    fs::write(dir.path().join("b.toml"), "data_dir = \"data\"\n").unwrap();
    dir
}

async fn change(dir: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(dir.join("data/catalog.sqlite"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[test]
fn verifying_nothing_fails_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.toml"), "data_dir = \"nowhere\"\n").unwrap();
    let (code, text) = run(dir.path(), &["verify", "--config", "b.toml"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nowhere/catalog.sqlite") && text.contains("there is none"), "{text}");
    assert_eq!(files(dir.path()), ["b.toml"]);
}

#[tokio::test]
async fn accounts_and_rows_are_held_against_each_other_both_ways() {
    let dir = left().await;
    let before = files(&dir.path().join("data"));
    let verify = || run(dir.path(), &["verify", "--gapless", "--config", "b.toml"]);
    let (code, text) = verify();
    assert_eq!((code, text.lines().count()), (Some(0), 2), "{text}");
    assert_eq!(files(&dir.path().join("data")), before, "looking makes nothing");
    change(dir.path(), "DELETE FROM sequence WHERE lane = 'reading'").await;
    let (code, text) = verify();
    assert!(code == Some(1) && text.contains(r#"{"found":"no-account","device":"pi""#), "{text}");
    change(dir.path(), "UPDATE sequence SET count = 7").await;
    let (code, text) = verify();
    assert!(code == Some(1) && text.contains(r#"{"found":"wrong-account","device":"pi""#), "{text}");
}

#[tokio::test]
async fn check_finds_damage_and_makes_nothing() {
    let dir = left().await;
    let data = dir.path().join("data");
    let before = files(&data);
    let check = || run(dir.path(), &["check", "--config", "b.toml"]);
    let (code, text) = check();
    assert_eq!((code, text.as_str()), (Some(0), "settings are good\n"));
    assert_eq!(files(&data), before);

    let catalog = data.join("catalog.sqlite");
    let good = fs::read(&catalog).unwrap();
    let mut bad = good.clone();
    bad[4096..].iter_mut().for_each(|byte| *byte = 0x5a);
    for damaged in [bad, b"no catalog at all, but long enough to be looked at".repeat(100)] {
        fs::write(&catalog, damaged).unwrap();
        let (code, text) = check();
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("catalog data/catalog.sqlite") && text.contains("move it aside"), "{text}");
    }
    fs::write(&catalog, good).unwrap();
    fs::rename(data.join("objects"), data.join("aside")).unwrap();
    fs::write(data.join("objects"), "in the way").unwrap();
    let (code, text) = check();
    assert!(code == Some(1) && text.contains("object folder data/objects"), "{text}");

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(run(empty.path(), &["check"]).0, Some(0));
    assert_eq!(files(empty.path()), Vec::<String>::new());
}
