"""Keys of the old servers that do nothing here, each with the reason that a user is told.

In an old server's format such a key is a warning, in our own it is an error.
"""

_JVM = "it steers the old server's Java process, and there is none here"
_PLACES = "it says where the old server's own parts lie, and nothing here is looked for there"
_GRPC = "this version has no gRPC address"
_NOTE = "it tells which version of the old server wrote a snapshot"
_KSERVE = "KServe's examples set it, and no model server reads it"
_LATER = "this version cannot do what it asks for"

#: Keys with blanks between, by reason.
BY_REASON: dict[str, str] = {
    _JVM: "vmargs number_of_netty_threads netty_client_threads prefer_direct_buffer io_ratio use_native_io "
    "plugins_path async_logging",
    _PLACES: "model_server_home cpp_log_config",
    _GRPC: "grpc_inference_address grpc_inference_port grpc_management_address grpc_management_port "
    "grpc_inference_max_connection_age_ms grpc_inference_max_connection_age_grace_ms "
    "grpc_management_max_connection_age_ms grpc_management_max_connection_age_grace_ms enable_grpc_ssl",
    _NOTE: "version",
    _KSERVE: "NUM_WORKERS",
    _LATER: "workflow_store ts_header_key_sequence_id ts_header_key_sequence_start ts_header_key_sequence_end",
}

#: Reason by key.
INERT: dict[str, str] = {key: reason for reason, keys in BY_REASON.items() for key in keys.split()}
