// One HTTPS call by Go's own client, configured by the environment alone.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
}
