//! What a first-time user does wrong: one line each, what and why and what to do, exit status non-zero.
#![allow(clippy::unwrap_used, reason = "a test may")]
use assert_cmd::Command;

fn weft(args: &[&str]) -> (bool, String) {
    let mut command = Command::cargo_bin("weft").unwrap();
    let output = command.args(args).env_remove("WEFT_CONTEXT").env_remove("WEFT_SOCKET").output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn refused(args: &[&str], parts: &[&str]) {
    let (ok, error) = weft(args);
    assert!(!ok, "{args:?} succeeded");
    for part in parts {
        assert!(error.contains(part), "{args:?} said: {error}");
    }
}

/// As [`refused`], by the command itself, not by the parser of the command line.
fn refused_in_one_line(args: &[&str], parts: &[&str]) {
    refused(args, parts);
    let (_, error) = weft(args);
    assert_eq!(error.lines().count(), 1, "{args:?} said: {error}");
    assert!(error.starts_with("error: "), "{error}");
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none").display().to_string();
    refused_in_one_line(&["tsi", "list", "--socket", &none], &["no NVE answers at", &none, "weft nve"]);
    refused_in_one_line(
        &["get", "vns", "--context", &none],
        &["cannot read the context", &none, "WEFT_CONTEXT"],
    );
    let data = none.as_str();
    refused_in_one_line(
        &["oracle", "restore", "/nonexistent/backup", "--data-dir", data],
        &["/nonexistent/backup"],
    );
}

/// What is no lab's name, or a directory that is no lab's, takes nothing away.
#[test]
fn what_is_no_lab_is_not_taken_down() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("labs");
    std::fs::create_dir_all(root.join("failed")).unwrap();
    let precious = [place.path().join("precious"), root.join("precious"), root.join("failed/precious")];
    for file in &precious {
        std::fs::write(file, "kept").unwrap();
    }
    let dir = root.display().to_string();
    for name in ["", ".", "..", "../labs", "Failed", "failed", "none"] {
        let wanted = if ["failed", "none"].contains(&name) { "is up" } else { "is no name for a lab" };
        refused_in_one_line(&["lab", "down", name, "--run-dir", &dir], &[wanted]);
        refused(&["lab", "exec", "--lab", name, "--run-dir", &dir, "h1", "--", "true"], &[wanted]);
        assert!(precious.iter().all(|file| file.exists()), "{name:?}");
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2, "no lock is left");
}

#[test]
fn uninstalling_under_a_running_agent() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (socket, none) = (path("nve.sock"), path("none"));
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused_in_one_line(
        &["nve", "uninstall", "--socket", &socket, "--data-dir", &none, "--pin-dir", &none],
        &[&socket, "running weft nve", "stop"],
    );
}

#[test]
fn errors_for_programs_are_json() {
    let (ok, error) = weft(&["tsi", "list", "--socket", "/nonexistent/nve.sock", "-o", "json"]);
    assert!(!ok);
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["error"], "unreachable");
    assert!(error["message"].as_str().unwrap().contains("/nonexistent/nve.sock"));
}

#[test]
fn what_the_parser_refuses_is_one_line_too() {
    refused_in_one_line(&["vn", "create"], &["required", "<NAME>", "--help"]);
    refused_in_one_line(&["vn", "create", "red", "--subnet", "10.0.0.0/33"], &["'10.0.0.0/33' is no subnet"]);
    refused_in_one_line(&["gett", "vns"], &["'gett'", "get"]);
    refused_in_one_line(&["get", "everything"], &["'everything'", "mappings"]);
    refused_in_one_line(&["tsi", "attach", "--vn", "red"], &["--name <NAME>", "--device <DEVICE>"]);
    refused_in_one_line(&["vn"], &["a command is missing", "--help"]);
    let (ok, error) = weft(&["vn", "create", "red", "--vni", "0", "-o", "json"]);
    assert!(!ok);
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["error"], "usage");
    assert!(error["message"].as_str().unwrap().contains("VNID 0 is reserved"));
    assert!(weft(&["--help"]).0 && weft(&["--version"]).0 && weft(&["vn", "create", "--help"]).0);
}

#[test]
fn values_that_cannot_be() {
    refused_in_one_line(&["vn", "create", "Red"], &["'Red' has 'R' in it"]);
    refused_in_one_line(&["vn", "create", "red", "--vni", "0"], &["VNID 0 is reserved"]);
    refused_in_one_line(&["vn", "create", "red", "--vni", "16777216"], &["does not fit 24 bits"]);
    refused_in_one_line(&["vn", "create", "red", "--learning", "guess"], &["guess", "oracle"]);
    refused_in_one_line(&["vn", "create", "red", "--miss", "guess"], &["guess", "queue"]);
    refused_in_one_line(&["vn", "create", "red", "--storm-rate", "0"], &["storm rate of 0", "`bum: drop`"]);
    refused_in_one_line(
        &["vn", "create", "red", "--subnet", "10.0.0.1/24"],
        &["10.0.0.1/24 has host bits", "10.0.0.0/24"],
    );
    refused_in_one_line(
        &["vn", "create", "red", "--subnet", "10.0.0.0/24", "--subnet", "10.0.0.128/25"],
        &["10.0.0.0/24 and 10.0.0.128/25 overlap"],
    );
    let attach = ["tsi", "attach", "--vn", "red", "--name", "a", "--device", "x"];
    refused_in_one_line(&[&attach[..], &["--mac", "01:00:00:00:00:01"]].concat(), &["group address"]);
    refused_in_one_line(
        &[&attach[..], &["--ip", "224.0.0.1"]].concat(),
        &["224.0.0.1 is no unicast address"],
    );
    refused_in_one_line(&[&attach[..], &["--ip", "nonsense"]].concat(), &["'nonsense' is no IP address"]);
}

#[test]
fn tunnel_policies_that_cannot_be() {
    for of in [&["vn", "set", "red"][..], &["tsi", "set", "--vn", "red", "--name", "a"]] {
        let set = |option, value| [of, &[option, value]].concat();
        refused_in_one_line(&set("--tunnel-ttl", "0"), &["a TTL of 0 lets no frame leave; name 1 to 255"]);
        refused_in_one_line(&set("--tunnel-ttl", "256"), &["'256' is no TTL"]);
        refused_in_one_line(&set("--tunnel-dscp", "64"), &["'64' is no DSCP; write 0 to 63, or copy"]);
        refused_in_one_line(
            &set("--tunnel-ports", "200-100"),
            &["'200-100' is no range", "the lowest and the highest"],
        );
        refused_in_one_line(&set("--tunnel-send-rate", "0"), &["'0' is no rate", "100mbit, or unlimited"]);
        refused_in_one_line(&set("--tunnel-receive-rate", "5furlongs"), &["'5furlongs' is no rate"]);
        refused_in_one_line(
            &set("--tunnel-send-burst", "0"),
            &["a burst of 0 cannot be; name 1 to 1073741824"],
        );
        refused_in_one_line(&set("--tunnel-ipv4-priority", "256"), &["256", "--tunnel-ipv4-priority"]);
        refused_in_one_line(of, &["required", "--tunnel-ttl"]);
    }
}

#[test]
fn rules_that_are_none() {
    let set = ["group", "set", "web", "--vn", "red"];
    let rule = |text| [&set[..], &["--rule", text]].concat();
    refused_in_one_line(&rule("in tcp/90-80"), &["90-80 are upside down; did you mean 80-90?"]);
    refused_in_one_line(&rule("in icmp/8 from fd00::/8"), &["icmp is no protocol of fd00::/8", "icmpv6"]);
    refused_in_one_line(&rule("tcp/80"), &["begin with in or out"]);
    let twice = [&rule("in tcp/80")[..], &["--rule", "in tcp/80 log"]].concat();
    refused_in_one_line(&twice, &["'in tcp/80 from anybody' stands twice"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules").display().to_string();
    let from_file = [&set[..], &["-f", &file]].concat();
    refused_in_one_line(&from_file, &["cannot read", "a rule a line"]);
    std::fs::write(&file, "# what the shop needs\n\nin tcp/80\nin everything\n").unwrap();
    refused_in_one_line(&from_file, &["line 4 of", "'everything' is no protocol"]);
    refused_in_one_line(&["tsi", "set-groups", "--vn", "red", "--name", "a", "--groups", "a,,b"], &["empty"]);
}

#[test]
fn an_nve_without_identity_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let nve = ["nve", "--data-dir", &path("d"), "--socket", &path("s"), "--http-listen", "127.0.0.1:0"];
    refused_in_one_line(&nve, &["has not joined yet", "weft oracle token"]);
    refused_in_one_line(&[&nve[..], &["--join", "hello"]].concat(), &["begins with 'weft1.'"]);
    refused_in_one_line(&[&nve[..], &["--join", "weft1.AAAA"]].concat(), &["damaged"]);
}
