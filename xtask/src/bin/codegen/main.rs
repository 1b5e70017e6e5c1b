//! Generates what follows from the .proto files: `codegen REPOSITORY OUT_DIRECTORY`
//! writes every generated file below the latter, under its path in the repository.
//!
//! protox parses the .proto files, so that no protoc needs to be installed.

mod definition;
mod rust;
mod words;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use definition::Definition;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const FILES: [&str; 2] = ["speedmimi/v1/query.proto", "speedmimi/v1/report.proto"];

/// What only this program reads, and what prost has types for.
const OPTIONS: [&str; 2] = [
    "google/protobuf/descriptor.proto",
    "speedmimi/v1/figure.proto",
];

/// The services are generated for those alone who serve or call them.
const SERVICES: &str = "#[cfg(feature = \"services\")]";

const RUST: &str = "monitor-proto/src/generated";

fn main() -> Outcome {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(repository), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: codegen REPOSITORY OUT_DIRECTORY".into());
    };
    let mut compiler = protox::Compiler::new([repository.join("monitor-proto/proto")])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;

    let rust = out.join(RUST);
    fs::create_dir_all(&rust)?;
    wire_types(&compiler, &rust)?;

    let definition = Definition::read(&compiler.descriptor_pool())?;
    for (name, text) in [
        ("figures.rs", rust::figures(&definition)?),
        ("counters.rs", rust::json(&definition)?),
    ] {
        fs::write(rust.join(name), text)?;
        format(&rust.join(name))?;
    }
    write(&out, words::PAGE, &words::page(&definition)?)?;
    let before = fs::read_to_string(repository.join(words::DOCUMENT))?;
    let document = words::document(&definition, &before)?;
    write(&out, words::DOCUMENT, &document)
}

fn wire_types(compiler: &protox::Compiler, out: &Path) -> Outcome {
    let mut descriptors = compiler.file_descriptor_set();
    descriptors
        .file
        .retain(|file| !OPTIONS.contains(&file.name()));
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .client_mod_attribute(".", SERVICES)
        .server_mod_attribute(".", SERVICES)
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn write(out: &Path, path: &str, text: &str) -> Outcome {
    let path = out.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)?;
    Ok(())
}

fn format(path: &Path) -> Outcome {
    let status = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .arg(path)
        .status()?;
    if !status.success() {
        return Err(format!("rustfmt does not take {}", path.display()).into());
    }
    Ok(())
}
