module tracewire.test/go-no-proxy

go 1.19
