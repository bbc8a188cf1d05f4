//! After a migration that has failed the machine goes on where it was, and at no time in two places.

use crate::error::LabError;

/// The QEMUs of a machine that was to move.
pub(super) trait Machines {
    /// Ends the one that it was to come to, which may run it by now.
    fn end_there(&mut self) -> Result<(), LabError>;
    /// Calls the migration off where it was: QEMU may have it go on by that.
    fn cancel_here(&mut self) -> Result<(), LabError>;
    /// Has it go on where it was.
    fn go_on_here(&mut self) -> Result<(), LabError>;
}

/// Has the machine go on where it was; `moving`: its memory was being sent, so that it may be stopped there. Gives what
/// went wrong on the way.
///
/// # Errors
/// Why the other one could not be ended: then it is left as it is here, for it may run there.
pub(super) fn go_back(machines: &mut impl Machines, moving: bool) -> Result<Vec<LabError>, LabError> {
    let ended = machines.end_there();
    if !moving {
        // It has never stopped here, and there was nothing to run there.
        return Ok(ended.err().into_iter().collect());
    }
    ended?;
    let cancelled = machines.cancel_here();
    let goes_on = machines.go_on_here();
    Ok([cancelled, goes_on].into_iter().filter_map(Result::err).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done, and what of it fails.
    #[derive(Default)]
    struct Fake {
        done: Vec<&'static str>,
        fails: &'static [&'static str],
    }

    impl Fake {
        fn does(&mut self, what: &'static str) -> Result<(), LabError> {
            self.done.push(what);
            let error = || LabError::Vm { vm: "red-vm".to_owned(), what: format!("cannot {what}") };
            if self.fails.contains(&what) { Err(error()) } else { Ok(()) }
        }
    }

    impl Machines for Fake {
        fn end_there(&mut self) -> Result<(), LabError> {
            self.does("end")
        }

        fn cancel_here(&mut self) -> Result<(), LabError> {
            self.does("cancel")
        }

        fn go_on_here(&mut self) -> Result<(), LabError> {
            self.does("go on")
        }
    }

    #[test]
    fn v8_what_may_run_there_does_not_go_on_here() {
        let mut machines = Fake::default();
        assert_eq!(go_back(&mut machines, true).unwrap().len(), 0);
        assert_eq!(machines.done, ["end", "cancel", "go on"], "QEMU goes on by itself when it is called off");
        let mut machines = Fake { fails: &["end"], ..Fake::default() };
        assert!(go_back(&mut machines, true).is_err());
        assert_eq!(machines.done, ["end"]);
        // It has ended there: whatever else fails, it is to go on here.
        let mut machines = Fake { fails: &["cancel"], ..Fake::default() };
        assert_eq!(go_back(&mut machines, true).unwrap().len(), 1);
        assert_eq!(machines.done, ["end", "cancel", "go on"]);
        let mut machines = Fake { fails: &["end"], ..Fake::default() };
        assert_eq!(go_back(&mut machines, false).unwrap().len(), 1);
        assert_eq!(machines.done, ["end"]);
    }
}
