// A step of a library: what it needs is kept in maps and lists.
def call(userConfig = [:]) {
    def defaults = [
        agentLabel: 'arm-builders',
        pushCredentialsId: 'registry-robot',
        liveBranch: 'main',
    ]
    final Map config = defaults << userConfig
    final Boolean onLive = (env.BRANCH_NAME == config.liveBranch)

    List wanted = [
        [type: 'usernamePassword', id: 'artifactoryCredentialsId', env: ['ARTIFACTORY_USER', 'ARTIFACTORY_PASSWORD']],
    ]
    config.tokens.each { id ->
        wanted << [type: 'token', id: id, env: [upper(id)]]
    }
    runBinary(config, wanted)

    Map share = [account: 'reports']
    share['storageCredentialsId'] = 'reports-writer'

    def bindings = [string(credentialsId: 'scan-key', variable: 'SCAN_KEY')]
    bindings << file(credentialsId: 'edge-kube', variable: 'KUBECONFIG')

    onAgent(config.agentLabel) {
        stage('Scan') {
            withCredentials(bindings) { sh './scan' }
        }
        stage('Custom') {
            withCredentials(config.extraCredentials) { sh 'make' }
        }
        if (!config.dry && onLive) {
            stage('Live') {
                withDockerRegistry(credentialsId: config.pushCredentialsId, url: 'https://registry.example.com') { sh 'make push' }
            }
        }
    }
}

def onAgent(label, body) {
    node(label) { body.call() }
}

static String upper(String s) { return s.toUpperCase() }
