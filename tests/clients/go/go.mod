module tracewire.test/go-client

go 1.19
