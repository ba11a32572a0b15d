// Go's net/http with a transport of the program's own that has no proxy and trusts one CA only.
// Arguments: the base URL, and the CA file of the server.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	base := os.Args[1]
	pem, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatal("no certificate in ", os.Args[2])
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	response, err := client.Get(base + "/weather?city=Paris")
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"city":"Paris"`) {
		log.Fatal(response.Status, " ", string(body))
	}
	fmt.Println("done")
}
