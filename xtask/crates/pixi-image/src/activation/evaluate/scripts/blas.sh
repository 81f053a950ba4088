# Which interface of the library to take, unless the caller says so.
: "${MKL_INTERFACE_LAYER:=LP64,GNU}"
export MKL_INTERFACE_LAYER
[ "$MKL_THREADING_LAYER" ] || { MKL_THREADING_LAYER=GNU; export MKL_THREADING_LAYER; }
