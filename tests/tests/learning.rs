//! A VN's way of learning is changed while its tenants talk. Each way by itself is looked at in `modes`.

use anyhow::{Result, ensure};
use weft_e2e::{THREE_HOSTS, TestLab, ping};
use weft_lab::{clock, probe::Stream};

/// A VN's mode changes under traffic, and back: nothing is lost.
#[test]
fn l_a_live_vn_changes_its_mode_and_back_without_loss() -> Result<()> {
    let lab = TestLab::up(THREE_HOSTS)?;
    lab.settle()?;
    // Over both families, one each way.
    let stream = |from: &str, to: &str, target: &str| -> Result<Stream> {
        let stream = Stream::start(&lab.node(from)?, &lab.node(to)?, target.parse()?, 1_000)?;
        stream.wait_first()?;
        Ok(stream)
    };
    let streams = [stream("red-a", "red-b", "10.0.0.2")?, stream("red-b", "red-a", "fd00::1")?];
    for mode in ["flood", "oracle", "distribute", "oracle"] {
        lab.weft(["vn", "set", "red", "--learning", mode])?;
        let goals = streams.each_ref().map(|stream| stream.sent() + 2_000);
        let over = || streams.iter().zip(goals).all(|(stream, goal)| stream.sent() >= goal);
        ensure!(clock::until_true(clock::CEILING, over), "{mode}: 2,000 packets take too long");
        // New pairs too, by the new way.
        lab.exec("red-c", &["ip", "neigh", "flush", "all"])?;
        ensure!(
            ping(&lab, "red-c", "10.0.0.1", 2)?.complete() && ping(&lab, "red-c", "fd00::1", 2)?.complete(),
            "{mode}"
        );
    }
    for stream in streams {
        let report = stream.stop();
        ensure!(report.lost == 0 && report.duplicates == 0, "{report:?}");
    }
    lab.down()
}
