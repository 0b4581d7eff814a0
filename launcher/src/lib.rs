pub mod rtsp_server;
