//! One integration binary: behaviour through the public interfaces, with real clients. Ports are always 0.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod access;
mod agent_lightning;
mod api;
mod as_it_came;
mod broken_responses;
mod callers;
mod canaries;
mod capture;
mod cli;
mod clients;
mod clock;
mod command_line;
mod doctor;
mod durability;
mod emit;
mod engine_detection;
mod engine_routes;
mod files;
mod framing;
mod gateway;
mod gateway_agents;
mod gateway_bodies;
mod gateway_clients;
mod gateway_contracts;
mod golden;
mod golden_trees;
mod grpc_export;
mod http2;
mod http2_endpoints;
mod ids;
mod imports;
mod limits;
mod listings;
mod live_export;
mod llm;
mod long_calls;
mod memory;
mod metrics;
mod metrics_export;
mod mock_script;
mod mutation;
mod otlp;
mod protocols;
mod proxy_listener;
mod python_package;
mod sampler_arrays;
mod sampling;
mod sequence_ids;
mod settings;
mod span_exports;
mod store_appends;
mod store_file;
mod store_outages;
mod store_removal;
mod store_suite;
mod store_upkeep;
mod stripping;
mod support;
mod terminal;
mod threat_model;
mod tls_input;
mod tokenizer;
mod tracer_examples;
mod tracer_faults;
mod tracers;
mod training;
mod tunnels;
mod upstream_faults;
mod upstream_ways;
mod web_page;
