//! Reports as the bytes that they are: encoded once, by the agent that makes them.

use prost::bytes::Bytes;

/// The method of `ReportService` that takes reports.
pub const EXPORT: &str = "/speedmimi.v1.ReportService/Export";

/// A `v1::ExportRequest` whose report stays encoded: on the wire, a message is the same
/// as its bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncodedExportRequest {
    /// The report.
    #[prost(bytes = "bytes", tag = "1")]
    pub report: Bytes,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::v1;

    #[test]
    fn on_the_wire_it_is_the_generated_message() {
        let report = v1::Report {
            sequence: 7,
            incomplete_reasons: vec!["why".to_owned()],
            ..v1::Report::default()
        };
        let encoded = EncodedExportRequest {
            report: report.encode_to_vec().into(),
        };
        let generated = v1::ExportRequest {
            report: Some(report),
        };
        assert_eq!(encoded.encode_to_vec(), generated.encode_to_vec());
    }
}
