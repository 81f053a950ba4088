if [ "${SSL_CERT_FILE+x}" != x ] || [ -z "$SSL_CERT_FILE" ]; then
    if [ -s "${CONDA_PREFIX}/ssl/cacert.pem" ] && [ -r "${CONDA_PREFIX}/ssl/cacert.pem" ]; then
        SSL_CERT_FILE="${CONDA_PREFIX}/ssl/cacert.pem"
        __CONDA_OPENSSL_CERT_FILE_SET="1"
        export SSL_CERT_FILE __CONDA_OPENSSL_CERT_FILE_SET
    fi
fi
