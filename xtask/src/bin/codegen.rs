//! Generates the wire types: `codegen PROTO_DIRECTORY OUT_DIRECTORY`.
//!
//! protox parses the .proto files, so that no protoc needs to be installed.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 2] = ["speedmimi/v1/query.proto", "speedmimi/v1/report.proto"];

/// The services are generated for those alone who serve or call them.
const SERVICES: &str = "#[cfg(feature = \"services\")]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(protos), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: codegen PROTO_DIRECTORY OUT_DIRECTORY".into());
    };
    let descriptors = protox::compile(FILES, [protos])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .client_mod_attribute(".", SERVICES)
        .server_mod_attribute(".", SERVICES)
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}
