//! What is wrong now, as gRPC has it.

use monitor_proto::v1;
use problems::{Kind, Problems, Severity};
use tonic::Status;

use crate::problems::Wanted;

pub(super) fn wanted(request: v1::ListProblemsRequest) -> Result<Wanted, Status> {
    let severity = match request.severity() {
        v1::ProblemSeverity::Unspecified => None,
        v1::ProblemSeverity::Info => Some(Severity::Info),
        v1::ProblemSeverity::Warning => Some(Severity::Warning),
        v1::ProblemSeverity::Critical => Some(Severity::Critical),
    };
    let kind = match request.kind.as_str() {
        "" => None,
        name => Some(Kind::named(name).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::name).join(", ");
            Status::invalid_argument(format!("kind {name:?} is not known: use one of {known}"))
        })?),
    };
    Ok(Wanted {
        host: request.host,
        kind,
        severity,
    })
}

pub(super) fn told(problems: Problems) -> v1::ListProblemsResponse {
    v1::ListProblemsResponse {
        problems: problems.problems.into_iter().map(one).collect(),
        total: problems.total,
        hosts: problems.hosts,
    }
}

fn one(problem: problems::Problem) -> v1::Problem {
    let severity = match problem.severity {
        Severity::Info => v1::ProblemSeverity::Info,
        Severity::Warning => v1::ProblemSeverity::Warning,
        Severity::Critical => v1::ProblemSeverity::Critical,
    };
    let subject = problem.subject;
    let evidence = problem
        .evidence
        .into_iter()
        .map(|figure| v1::ProblemEvidence {
            name: figure.name,
            value: figure.value,
            unit: figure.unit,
        });
    v1::Problem {
        kind: problem.kind,
        severity: severity.into(),
        subject: Some(v1::ProblemSubject {
            r#type: subject.place.word().to_owned(),
            host: subject.host,
            host_id: subject.host_id,
            target: subject.target,
            endpoint: subject.endpoint,
            listener: subject.listener,
            upstream: subject.upstream,
            backend: subject.backend,
            network_namespace: subject.network_namespace,
        }),
        since_unix_ns: problem.since_unix_ns,
        summary: problem.summary,
        evidence: evidence.collect(),
        details: problem.details,
        next: problem.next,
    }
}
