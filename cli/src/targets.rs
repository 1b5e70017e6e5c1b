//! Endpoints of different targets may have one name or address; where a report
//! has several targets, each endpoint is shown with its own.

use monitor_proto::json::Report;

/// The widest column of targets on a screen.
const WIDTH_MAX: usize = 20;

/// Whether a report is of more than one target.
pub(crate) fn several(report: &Report) -> bool {
    let mut targets = report.endpoints.iter().map(|e| &e.target);
    let first = targets.next();
    report.targets.len() > 1 || targets.any(|target| Some(target) != first)
}

/// The width of a report's column of targets on a screen.
pub(crate) fn width(report: &Report) -> u16 {
    let targets = report.endpoints.iter().map(|e| e.target.chars().count());
    let width = targets.max().unwrap_or(0);
    width.clamp("TARGET".len(), WIDTH_MAX) as u16
}

/// A target in [`WIDTH_MAX`] characters: the end of it, where cgroups differ.
pub(crate) fn shortened(target: &str) -> String {
    let length = target.chars().count();
    if length <= WIDTH_MAX {
        return target.to_owned();
    }
    let end = target.chars().skip(length + 1 - WIDTH_MAX);
    std::iter::once('…').chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_target_is_kept() {
        assert_eq!(shortened("/system.slice/a"), "/system.slice/a");
        let long = shortened("/system.slice/größer/haproxy");
        assert_eq!(long, "…lice/größer/haproxy");
        assert_eq!(long.chars().count(), WIDTH_MAX);
    }
}
