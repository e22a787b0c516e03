// The bindings that the pipelines of the house take.
def call() {
    return [
        string(credentialsId: 'store-key', variable: 'STORE_KEY'),
        [$class: 'AmazonWebServicesCredentialsBinding', accessKeyVariable: 'A', credentialsId: 'store-cloud', secretKeyVariable: 'S'],
    ]
}
