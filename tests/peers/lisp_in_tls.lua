-- LISP's reliable transport inside TLS on port 4342: tshark cannot be told so by an option.
DissectorTable.get("tls.port"):add(4342, Dissector.get("lisp-tcp"))
