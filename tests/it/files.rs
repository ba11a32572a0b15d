//! Files that others can change, or read where they must not, and what is written whatever the umask.

use crate::support::{Bench, TRACEWIRE, at_home, text, tracewire};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user that is neither this one nor root.
const STRANGER: u32 = 54_321;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Expects a command to fail with all these words.
#[track_caller]
fn refused(home: &Path, args: &[&str], words: &[&str]) {
    let output = tracewire(home).args(args).output().unwrap();
    let shown = text(&output);
    assert!(!output.status.success() && words.iter().all(|word| shown.contains(word)), "{args:?}: {shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

/// A data folder with a CA, and the paths of certificate and key.
fn home_with_ca() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let output = tracewire(home.path()).args(["ca", "path"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let [certificate, key] = ["ca/ca.pem", "ca/ca.key"].map(|name| home.path().join(name));
    (home, certificate, key)
}

const CA: &[&str] = &["ca", "path"];

#[test]
fn a_ca_that_others_can_change_is_refused_with_the_cure() {
    let (home, certificate, key) = home_with_ca();
    let folder = home.path().join("ca");
    for (path, wrong, right, words) in [
        (&folder, 0o777, 0o700, "chmod go-w"),
        (&folder, 0o770, 0o700, "chmod go-w"),
        (&certificate, 0o666, 0o644, "chmod go-w"),
        (&key, 0o640, 0o600, "chmod 600"),
        (&key, 0o604, 0o600, "chmod 600"),
        (&key, 0o620, 0o600, "chmod 600"),
    ] {
        set_mode(path, wrong);
        for command in [CA, &["env"], &["serve", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0"]] {
            refused(home.path(), command, &[words, path.to_str().unwrap()]);
        }
        set_mode(path, right);
        assert!(tracewire(home.path()).args(CA).status().unwrap().success());
    }
}

#[test]
fn half_a_ca_and_a_key_that_is_none_are_errors_and_no_new_ca() {
    let (home, certificate, key) = home_with_ca();
    let [pem, secret] = [&certificate, &key].map(|path| fs::read_to_string(path).unwrap());
    let put_back = |path: &Path, text: &str| {
        let _ = fs::remove_file(path);
        fs::write(path, text).unwrap();
        set_mode(path, 0o600);
    };
    fs::remove_file(&key).unwrap();
    refused(home.path(), CA, &["has no ca.key beside it", "remove ca.pem to create a new CA"]);
    assert_eq!(fs::read_to_string(&certificate).unwrap(), pem);
    put_back(&key, &secret);
    fs::remove_file(&certificate).unwrap();
    refused(home.path(), CA, &["is missing beside ca.key", "remove ca.key to create a new CA"]);
    put_back(&certificate, &pem);
    let (_other, other_certificate, other_key) = home_with_ca();
    for (text, words) in [
        ("", "is not a private key"),
        (&pem, "is not a private key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key"),
        (&fs::read_to_string(&other_key).unwrap(), "is not the key of the certificate in ca.pem"),
    ] {
        put_back(&key, text);
        refused(home.path(), CA, &[words, "create a new CA"]);
    }
    put_back(&key, &secret);
    put_back(&certificate, "no certificate");
    refused(home.path(), CA, &["ca.pem contains no usable PEM certificate"]);
    put_back(&certificate, &fs::read_to_string(&other_certificate).unwrap());
    refused(home.path(), CA, &["is not the key of the certificate"]);
    put_back(&certificate, &pem);
    assert!(tracewire(home.path()).args(CA).status().unwrap().success());
}

#[test]
fn what_a_killed_creation_of_a_ca_left_is_removed() {
    let (home, _, key) = home_with_ca();
    let [old, new] = [".key-old", ".ca-new"].map(|name| home.path().join("ca").join(name));
    fs::hard_link(&key, &old).unwrap();
    fs::write(&new, "").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    assert!(tracewire(home.path()).args(CA).status().unwrap().success());
    assert!(!old.exists() && new.exists() && key.exists(), "another process may still be creating one");
}

#[test]
fn a_store_that_others_can_change_is_refused_with_the_cure() {
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("spans.db");
    let name = store.to_str().unwrap();
    let run = |home: &Path| tracewire(home).args(["run", "--store", name, "--", "true"]).output().unwrap();
    assert!(run(home.path()).status.success());
    assert_eq!(mode(&store), 0o600);
    let log = home.path().join("spans.db-wal");
    for wrong in [&store, &log] {
        if !wrong.exists() {
            fs::write(wrong, "").unwrap();
        }
        for changeable in [0o666, 0o660, 0o602] {
            set_mode(wrong, changeable);
            let words = ["chmod go-w", wrong.to_str().unwrap(), "--store"];
            refused(home.path(), &["run", "--store", name, "--", "true"], &words);
            refused(home.path(), &["trace", "list", "--store", name], &words);
            assert_eq!(mode(wrong), changeable, "it is not changed");
        }
        set_mode(wrong, 0o644);
        assert!(run(home.path()).status.success(), "others may read it");
    }
}

#[test]
fn links_of_other_users_are_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let [elsewhere, folder, store] = ["elsewhere", "ca", "traces.db"].map(|name| home.path().join(name));
    fs::create_dir(&elsewhere).unwrap();
    set_mode(&elsewhere, 0o700);
    symlink(&elsewhere, &folder).unwrap();
    symlink(elsewhere.join("planted.db"), &store).unwrap();
    assert!(tracewire(home.path()).args(CA).status().unwrap().success(), "a link of one's own is followed");
    assert!(elsewhere.join("ca.key").exists());
    if [&folder, &store].into_iter().any(|link| lchown(link, Some(STRANGER), None).is_err()) {
        // Only root can give a link to another user.
        return;
    }
    let words = ["is a symbolic link of another user (uid 54321)"];
    refused(home.path(), CA, &words);
    refused(home.path(), &["ca", "path", "--ca-dir", &format!("{}/", folder.display())], &words);
    refused(home.path(), &["run", "--", "true"], &words);
    assert!(!elsewhere.join("planted.db").exists(), "nothing was created behind the link");
}

/// What `find` prints for a folder: mode and path of everything that the group or others can do anything with.
fn open_to_others(folder: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(folder).args(["-mindepth", "1", "-perm", "/077", "-printf", "%m %P\n"]);
    String::from_utf8(find.output().unwrap().stdout).unwrap()
}

#[test]
fn everything_is_private_whatever_the_umask() {
    let bench = Bench::new();
    let temporary = tempfile::tempdir().unwrap();
    let home = temporary.path().join("home/of/data");
    let under_no_umask = |script: &str| {
        let mut shell = at_home(Command::new("sh"), &home);
        shell.args(["-c", &format!("umask 000; {script}")]).env("TMPDIR", temporary.path());
        shell.env("TRACEWIRE", TRACEWIRE).env("HERE", temporary.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // What the command sees: the folder of hooks and bundles, and the umask, which is its own affair.
    let seen =
        under_no_umask("$TRACEWIRE run -- sh -c 'umask; find $HERE -mindepth 1 -perm /077 -printf \"%m %P\\n\"'");
    assert_eq!(seen, "0000\n", "the command's own umask, and nothing that others can use");
    under_no_umask("$TRACEWIRE env > /dev/null");
    let export = bench.run(&["--rollout", "ro-1", "--store", home.join("traces.db").to_str().unwrap()], &["true"]);
    assert!(export.status.success(), "{}", text(&export));
    under_no_umask("$TRACEWIRE export --all --format messages -o $HERE/rows.jsonl");
    // The public certificate is the only file that others may read, if the folder above it lets them.
    assert_eq!(open_to_others(temporary.path()), "644 home/of/data/ca/ca.pem\n");
    assert_eq!(mode(&bench.mock.path("ca")), 0o600);
    // A container's programs have other users' ids.
    under_no_umask("$TRACEWIRE env --format docker > /dev/null");
    let files = open_to_others(&home.join("ca/env"));
    assert!(files.contains("644 bundle.pem\n") && files.contains("755 python\n"), "{files}");
    assert!(!files.lines().any(|line| !line.starts_with("644 ") && !line.starts_with("755 ")), "{files}");
    assert_eq!(mode(&home.join("ca")), 0o700);
}
