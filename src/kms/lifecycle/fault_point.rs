//! Places at which a test has the process die.

/// Is shown the name of each place.
#[cfg(test)]
type Witness = Box<dyn Fn(&str)>;

#[cfg(test)]
thread_local! {
    static WITNESS: std::cell::RefCell<Option<Witness>> = const { std::cell::RefCell::new(None) };
}

/// Shows somebody on this thread each such place as it is come to.
#[cfg(test)]
pub(in crate::kms) fn show_fault_points(witness: impl Fn(&str) + 'static) {
    WITNESS.set(Some(Box::new(witness)));
}

/// Dies here, as of kill -9, if a debug build's environment has `FAULT_POINT` with this name. A
/// release build has no such places.
pub(super) fn fault_point(name: &str) {
    #[cfg(test)]
    WITNESS.with_borrow(|witness| {
        if let Some(witness) = witness {
            witness(name);
        }
    });
    #[cfg(debug_assertions)]
    if std::env::var_os("FAULT_POINT").is_some_and(|point| point == name) {
        // The kernel ends every thread at once: nothing is unwound, flushed or answered.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
